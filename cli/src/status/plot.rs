//! Lines of a small plot, as the path of an SVG: the newest point at the right edge, a second a step, gaps left open.

use std::fmt::Write;

use super::samples::KEPT;

/// Width of a plot, in its own units: one per second.
pub(super) const WIDTH: usize = KEPT;
/// Height of a plot, in its own units.
pub(super) const HEIGHT: usize = 80;

/// A round number that is no less than any value: 1, 2 or 5 times a power of ten.
pub(super) fn top(values: impl IntoIterator<Item = f64>) -> f64 {
    let most = values.into_iter().fold(0.0, f64::max);
    let mut power = 1.0;
    while power * 10.0 <= most {
        power *= 10.0;
    }
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|top| *top >= most).unwrap_or(most)
}

/// The path of `points`, oldest first, in a plot that ends at `top`.
pub(super) fn path(points: &[Option<f64>], top: f64) -> String {
    let mut path = String::new();
    let points = &points[points.len().saturating_sub(WIDTH)..];
    let first = WIDTH - points.len();
    let mut pen_is_down = false;
    for (index, point) in points.iter().enumerate() {
        let Some(value) = point else {
            pen_is_down = false;
            continue;
        };
        let (x, y) = (first + index + 1, HEIGHT as f64 * (1.0 - (value / top).clamp(0.0, 1.0)));
        // `write!` to a string cannot fail. A lone point is drawn, too: from itself to itself, with round ends.
        let _ = match pen_is_down {
            true => write!(path, "L{x} {y:.1}"),
            false => write!(path, "M{x} {y:.1}L{x} {y:.1}"),
        };
        pen_is_down = true;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tops_are_round_and_above_all() {
        for (most, expected) in [(0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (4.0, 5.0), (7.0, 10.0), (150.0, 200.0)]
        {
            assert_eq!(top([0.0, most]), expected, "{most}");
        }
    }

    #[test]
    fn the_newest_is_at_the_right_and_gaps_stay_open() {
        assert_eq!(
            path(&[Some(0.0), Some(5.0), None, Some(10.0)], 10.0),
            "M297 80.0L297 80.0L298 40.0M300 0.0L300 0.0"
        );
        assert_eq!(path(&[], 1.0), "");
        assert_eq!(path(&vec![Some(1.0); WIDTH + 5], 1.0).matches('L').count(), WIDTH);
    }
}
