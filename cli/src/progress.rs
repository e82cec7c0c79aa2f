//! Progress bars on standard error: shown on a terminal only, and never beside `--json`.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What a bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counts {
    /// Sessions.
    Sessions,
    /// Bytes.
    Bytes,
}

/// A bar of `total` things; hidden when nobody looks.
pub(crate) fn bar(counts: Counts, total: u64, json: bool) -> ProgressBar {
    let hidden = json || !std::io::stderr().is_terminal();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(10) };
    let template = match counts {
        Counts::Sessions => "{bar:40} {human_pos}/{human_len} sessions  {per_sec}  {elapsed_precise}  {msg}",
        Counts::Bytes => "{bar:40} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {msg}",
    };
    let style = ProgressStyle::with_template(template)
        .expect("cannot fail because the templates are constant and a test makes each")
        .progress_chars("=> ");
    ProgressBar::with_draw_target(Some(total), target).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_valid_and_json_hides_the_bar() {
        for counts in [Counts::Sessions, Counts::Bytes] {
            assert!(bar(counts, 10, true).is_hidden());
        }
    }
}
