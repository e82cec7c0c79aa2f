//! Rust source with its comments and the contents of its literals told apart from its code.

/// The two layers of a source file. Both have the lines of the original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// Code only: comments, and what stands inside string and character literals, are spaces.
    pub code: String,
    /// Comments only: everything else is spaces.
    pub comments: String,
}

/// Splits `source` into its layers. Total: text that is no Rust gives some split, never a panic.
#[must_use]
pub fn layers(source: &str) -> Layers {
    let chars: Vec<char> = source.chars().collect();
    let mut split = Split { chars: &chars, at: 0, code: String::new(), comments: String::new() };
    while split.at < chars.len() {
        split.next_token();
    }
    Layers { code: split.code, comments: split.comments }
}

/// Where a character goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Code,
    Comment,
    Neither,
}

struct Split<'s> {
    chars: &'s [char],
    at: usize,
    code: String,
    comments: String,
}

impl Split<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn looking_at(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(ahead, c)| self.peek(ahead) == Some(c))
    }

    /// Moves past `count` characters, writing them to `layer` and a space (or the line's end) to the other.
    fn take(&mut self, count: usize, layer: Layer) {
        let end = self.chars.len().min(self.at + count);
        for &c in &self.chars[self.at..end] {
            let blank = if c == '\n' { '\n' } else { ' ' };
            self.code.push(if layer == Layer::Code { c } else { blank });
            self.comments.push(if layer == Layer::Comment { c } else { blank });
        }
        self.at = end;
    }

    fn next_token(&mut self) {
        if self.looking_at("//") {
            let length = self.chars[self.at..].iter().take_while(|&&c| c != '\n').count();
            self.take(length, Layer::Comment);
        } else if self.looking_at("/*") {
            self.block_comment();
        } else if let Some((prefix, hashes)) = self.raw_string() {
            self.take(prefix, Layer::Code);
            let end: String = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            while self.at < self.chars.len() && !self.looking_at(&end) {
                self.take(1, Layer::Neither);
            }
            self.take(end.len(), Layer::Code);
        } else if self.peek(0) == Some('"') {
            self.quoted('"');
        } else if self.peek(0) == Some('\'') && self.is_character() {
            self.quoted('\'');
        } else if self.peek(0).is_some_and(is_word) {
            // The whole word, so that the `r` of `for"` is no raw string's.
            let length = self.chars[self.at..].iter().take_while(|&&c| is_word(c)).count();
            self.take(length, Layer::Code);
        } else {
            self.take(1, Layer::Code);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            if self.looking_at("/*") {
                depth += 1;
                self.take(2, Layer::Comment);
            } else if self.looking_at("*/") {
                depth -= 1;
                self.take(2, Layer::Comment);
                if depth == 0 {
                    return;
                }
            } else {
                self.take(1, Layer::Comment);
            }
        }
    }

    /// Length of `r##"` (with any `b` or `c` before it) and the number of its hashes.
    fn raw_string(&self) -> Option<(usize, usize)> {
        let marker = ["r", "br", "cr"]
            .into_iter()
            .find(|marker| self.looking_at(marker) && matches!(self.peek(marker.len()), Some('"' | '#')))?;
        let hashes = self.chars[self.at + marker.len()..].iter().take_while(|&&c| c == '#').count();
        (self.peek(marker.len() + hashes) == Some('"')).then_some((marker.len() + hashes + 1, hashes))
    }

    /// Whether the quote here opens a character and no lifetime: `'a'`, `'\n'`, but not `'a,`.
    fn is_character(&self) -> bool {
        self.peek(1) == Some('\\') || self.peek(2) == Some('\'')
    }

    fn quoted(&mut self, quote: char) {
        self.take(1, Layer::Code);
        while let Some(c) = self.peek(0) {
            if c == quote {
                self.take(1, Layer::Code);
                return;
            }
            self.take(if c == '\\' { 2 } else { 1 }, Layer::Neither);
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in `text` by itself, not as a part of a longer identifier.
#[must_use]
pub fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(source: &str) -> String {
        let layers = layers(source);
        assert_eq!(layers.code.lines().count(), source.lines().count());
        assert_eq!(layers.comments.lines().count(), source.lines().count());
        layers.code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_leave_the_code_and_nest() {
        assert_eq!(code("a // b\nc /* d /* e */ f */ g"), "a c g");
        assert_eq!(layers("a // b\nc").comments.trim(), "// b");
    }

    #[test]
    fn contents_of_literals_leave_the_code() {
        assert_eq!(code(r#"x("unsafe // \" ", y)"#), r#"x(" ", y)"#);
        assert_eq!(code(r###"x(r#"a "quoted" b"#, y)"###), r###"x(r#" "#, y)"###);
        assert_eq!(code(r#"b"abc" + br"d" z"#), r#"b" " + br" " z"#);
        assert_eq!(code(r"'\'' '/' '/' z"), "' ' ' ' ' ' z");
    }

    #[test]
    fn lifetimes_are_no_characters() {
        assert_eq!(code("fn f<'a>(x: &'a str) {} // it's"), "fn f<'a>(x: &'a str) {}");
    }

    #[test]
    fn raw_identifiers_and_words_ending_in_r_are_no_raw_strings() {
        assert_eq!(code("r#type + for\"x\" y"), "r#type + for\" \" y");
    }

    #[test]
    fn unfinished_text_ends() {
        for text in ["\"abc", "/* a", "r#\"abc", "'", "'\\", "b", "r#"] {
            let _ = layers(text);
        }
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("an unsafe block", "unsafe"));
        assert!(!has_word("forbid(unsafe_code)", "unsafe"));
        assert!(has_word("unsafe_x unsafe", "unsafe"));
    }
}
