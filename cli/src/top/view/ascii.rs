//! A drawn screen for terminals that can show nothing but ASCII.

use ratatui::buffer::Buffer;

/// Puts an ASCII character in the place of every other.
pub(super) fn translate(buffer: &mut Buffer) {
    for cell in buffer.content.iter_mut().filter(|cell| !cell.symbol().is_ascii()) {
        let like = cell.symbol().chars().next().map_or(' ', like);
        cell.set_char(like);
    }
}

/// What looks most like it.
fn like(character: char) -> char {
    match character {
        '─' => '-',
        '│' => '|',
        '╭' | '╮' | '╰' | '╯' => '+',
        '·' => '.',
        '…' => '~',
        '▲' | '↑' => '^',
        '▼' | '↓' => 'v',
        // The end of a bar, less than half a character: of what is left.
        '▏' | '▎' | '▍' => '.',
        '▌' | '▋' | '▊' | '▉' | '█' => '#',
        // Levels of a plot, which are darker the higher they are.
        '▁' => '_',
        '▂' => '.',
        '▃' => ':',
        '▄' => '-',
        '▅' => '=',
        '▆' => '+',
        '▇' => '*',
        _ => '?',
    }
}
