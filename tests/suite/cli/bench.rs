//! `hoststack bench`: that it runs and what it prints, not how fast. Figures of this build mean nothing.
//! `bench conn` takes too long in this build: `.ci/run` tries it in the release build.

use serde_json::Value;

use crate::run;

#[test]
fn bench_prints_a_row_for_each_figure_with_peer_goal_and_alarm() {
    for work in ["rr", "bulk", "memory"] {
        let done = run(&["bench", work, "--quick", "--rounds", "1", "--json"]).success();
        let report = done.json();
        let rows = report["rows"].as_array().unwrap_or_else(|| panic!("no rows in {report:#}"));
        assert!(rows.iter().any(|row| row["work"] == *work), "{report:#}");
        for row in rows {
            assert!(row["ours"].as_f64().is_some_and(|figure| figure > 0.0), "{row:#}");
            for name in ["variant", "unit", "peer", "ratio", "goal", "alarm"] {
                assert!(row.get(name).is_some(), "no {name} in {row:#}");
            }
        }
        let is_figure = |value: &Value| value.as_f64().is_some_and(|figure| figure > 0.0);
        assert!(rows.iter().any(|row| is_figure(&row["goal"]) && is_figure(&row["alarm"])), "{report:#}");
    }
}

#[test]
fn bench_over_transports_prints_what_a_connection_costs_beside_the_peer_of_each() {
    let done =
        run(&["bench", "conn", "--transport", "kernel,kernel+unix", "--quick", "--rounds", "1", "--json"])
            .success();
    let report = done.json();
    let rows = report["rows"].as_array().unwrap_or_else(|| panic!("no rows in {report:#}"));
    let cost = |variant: &str| {
        let row = rows.iter().find(|row| row["variant"] == *variant && row["unit"] == "cpu-ns");
        row.unwrap_or_else(|| panic!("no {variant} in {report:#}"))
    };
    for variant in ["kernel", "kernel, threaded", "kernel+unix", "kernel+unix, threaded"] {
        let row = cost(variant);
        let [ours, peer, goal] = ["ours", "peer", "goal"].map(|name| row[name].as_f64().unwrap_or(0.0));
        // A system call costs more than 10 ns, and a connection takes ten.
        assert!(ours > 100.0 && peer > 100.0, "{row:#}");
        assert!((goal / peer - 1.15).abs() < 1e-6, "{row:#}");
    }
}
