//! Figures in few characters: a screen is narrow.

/// A count of at most five characters: `999`, `1.23k`, `45.6M`.
pub(super) fn count(count: f64) -> String {
    scaled(count, ["", "k", "M", "G", "T", "P"])
}

/// A rate: as [`count`], with a decimal where it is small.
pub(super) fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 { format!("{rate:.1}") } else { count(rate) }
}

/// Bytes in powers of 1000: `0 B`, `1.50 kB`.
pub(super) fn bytes(bytes: f64) -> String {
    scaled(bytes, [" B", " kB", " MB", " GB", " TB", " PB"])
}

fn scaled(number: f64, units: [&str; 6]) -> String {
    let mut number = number;
    for (index, unit) in units.iter().enumerate() {
        // Rounded as it will be shown: 999.7 is no `1000`.
        if index == 0 && number < 999.5 {
            return format!("{number:.0}{unit}");
        }
        if index > 0 && number < 9.995 {
            return format!("{number:.2}{unit}");
        }
        if index > 0 && number < 99.95 {
            return format!("{number:.1}{unit}");
        }
        if index > 0 && number < 999.5 || index == units.len() - 1 {
            return format!("{number:.0}{unit}");
        }
        number /= 1000.0;
    }
    format!("{number:.0}")
}

/// A span of time: `850 us`, `12.3 ms`, `4.56 s`, `3m05s`, `2h07m`, `12d03h`.
pub(super) fn span(micros: f64) -> String {
    let seconds = micros / 1e6;
    // Cannot truncate what matters because: whole seconds of a span that is shown in minutes.
    let whole = seconds as u64;
    match micros {
        ..999.5 => format!("{micros:.0} us"),
        ..999_950.0 => format!("{:.1} ms", micros / 1e3),
        ..59_995_000.0 => format!("{seconds:.2} s"),
        ..3.6e9 => format!("{}m{:02}s", whole / 60, whole % 60),
        ..8.64e10 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3600 % 24),
    }
}

/// A figure that may be missing.
pub(super) fn optional(figure: Option<f64>, text: fn(f64) -> String) -> String {
    figure.map_or_else(|| "-".to_owned(), text)
}

/// The text in at most so many characters, the last an ellipsis when there are more.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// A bar of so many characters that is full at 1.
pub(super) fn bar(share: f64, width: usize) -> String {
    // Cannot go wrong because: between 0 and 8 times a screen's width.
    let eighths = (share.clamp(0.0, 1.0) * (8 * width) as f64).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    bar.extend((eighths % 8).checked_sub(1).map(|part| PARTS[part]));
    bar
}

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// A small plot, one character a value, of `height` lines (the highest first): the largest value is full, zero is the lowest line, and what is not known
/// is empty. It stands to the right, where the newest is.
pub(super) fn plot(values: &[Option<f64>], width: usize, height: usize) -> Vec<String> {
    let values = &values[values.len().saturating_sub(width)..];
    let largest = values.iter().flatten().copied().fold(0.0, f64::max);
    let steps = 8 * height;
    let level = |value: f64| match largest {
        0.0 => 1,
        // Cannot go wrong because: between 1 and `steps`.
        largest => ((value / largest * steps as f64).ceil() as usize).clamp(1, steps),
    };
    let cell = |value: &Option<f64>, line: usize| match value {
        None => ' ',
        Some(value) => match level(*value).saturating_sub(8 * (height - 1 - line)) {
            0 => ' ',
            part => LEVELS[part.min(8) - 1],
        },
    };
    (0..height)
        .map(|line| {
            let plot: String = values.iter().map(|value| cell(value, line)).collect();
            format!("{plot:>width$}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short_and_never_round_to_a_longer_one() {
        let counts = [0.0, 999.0, 999.7, 1234.0, 9999.0, 12_345.0, 99_960.0, 999_700.0, 5e6, 2.5e9, 7e18];
        let texts = counts.map(count);
        assert_eq!(
            texts,
            ["0", "999", "1.00k", "1.23k", "10.0k", "12.3k", "100k", "1.00M", "5.00M", "2.50G", "7000P"]
        );
        assert_eq!([0.0, 0.25, 9.94, 10.2].map(rate), ["0", "0.2", "9.9", "10"]);
        assert_eq!([0.0, 1500.0, 2e6].map(bytes), ["0 B", "1.50 kB", "2.00 MB"]);
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let spans = [0.0, 999.0, 1500.0, 2.5e6, 185e6, 7620e6, 1_047_600e6].map(span);
        assert_eq!(spans, ["0 us", "999 us", "1.5 ms", "2.50 s", "3m05s", "2h07m", "12d03h"]);
        assert_eq!(optional(None, span), "-");
    }

    #[test]
    fn a_text_that_is_too_long_says_so() {
        assert_eq!([cut("abcd", 4), cut("abcde", 4), cut("ab", 1), cut("ab", 0)], ["abcd", "abc…", "…", ""]);
    }

    #[test]
    fn a_bar_is_as_full_as_its_share() {
        assert_eq!([0.0, 0.5, 1.0, 7.0].map(|share| bar(share, 4)), ["", "██", "████", "████"]);
        assert_eq!(bar(0.53, 4), "██▏");
        assert_eq!(bar(0.6, 4), "██▍");
    }

    #[test]
    fn a_plot_is_scaled_to_its_largest_and_holes_stay_empty() {
        assert_eq!(plot(&[Some(0.0), Some(4.0), None, Some(8.0)], 6, 1), ["  ▁▄ █"]);
        assert_eq!(plot(&[Some(1.0), Some(2.0), Some(3.0)], 2, 1), ["▆█"], "the newest");
        assert_eq!(plot(&[Some(2.0), Some(8.0)], 2, 2), [" █", "▄█"]);
        assert_eq!(plot(&[Some(0.0); 3], 3, 1), ["▁▁▁"]);
        assert_eq!(plot(&[], 2, 1), ["  "]);
    }
}
