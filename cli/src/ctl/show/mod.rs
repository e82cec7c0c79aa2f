//! Answers to `show` commands, by topic: values with a text for people; their JSON is serde's.

pub(crate) mod channels;
pub(crate) mod config;
pub(crate) mod congestion;
pub(crate) mod errors;
pub(crate) mod events;
pub(crate) mod histograms;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod ping;
pub(crate) mod ports;
pub(crate) mod sessions;
pub(crate) mod trace;
pub(crate) mod transports;
pub(crate) mod workers;

/// Thousandths as a percentage: `12.3%`.
fn percent(permille: u32) -> String {
    format!("{}.{}%", permille / 10, permille % 10)
}

/// The mean with one digit behind the point; `-` of nothing.
fn mean(sum: u64, count: u64) -> String {
    if count == 0 { "-".to_owned() } else { format!("{:.1}", sum as f64 / count as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_means_have_one_digit_behind_the_point() {
        assert_eq!([0, 7, 123, 1000].map(percent), ["0.0%", "0.7%", "12.3%", "100.0%"]);
        assert_eq!([mean(0, 0), mean(5, 2), mean(7, 7)], ["-", "2.5", "1.0"]);
    }
}
