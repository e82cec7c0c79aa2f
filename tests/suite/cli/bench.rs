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
