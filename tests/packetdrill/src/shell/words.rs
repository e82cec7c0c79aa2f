//! A command line of a script in pieces: what a shell would make of it, as far as scripts go.
//!
//! Known: comments, quotes, `$NAME`, `${NAME}`, `$((sum))`, `;`, newlines, `&&`, `||`, `|`, and where the output goes.

/// A command, its words expanded.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Command {
    pub(super) words: Vec<String>,
    /// Where its output goes, if not on.
    pub(super) output: Option<String>,
}

/// When a pipeline runs, by how the one before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// After success.
    And,
    /// After failure.
    Or,
}

/// Commands, each reading what the one before wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pipeline {
    pub(super) when: When,
    pub(super) commands: Vec<Command>,
}

/// Takes a text apart.
pub(super) fn parse(text: &str, variable: &dyn Fn(&str) -> String) -> Vec<Pipeline> {
    let mut reader = Reader {
        rest: text.chars().collect(),
        at: 0,
        variable,
        done: Vec::new(),
        commands: Vec::new(),
        command: Command::default(),
        word: None,
        to_output: None,
        when: When::Always,
    };
    reader.read();
    reader.done
}

struct Reader<'a> {
    rest: Vec<char>,
    at: usize,
    variable: &'a dyn Fn(&str) -> String,
    done: Vec<Pipeline>,
    commands: Vec<Command>,
    command: Command,
    word: Option<String>,
    /// The next word says where output goes: whether it is that of the command, or that of errors.
    to_output: Option<bool>,
    when: When,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    fn takes(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn read(&mut self) {
        while let Some(c) = self.next() {
            match c {
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(c) => self.push(c),
                },
                '\'' => {
                    self.word.get_or_insert_default();
                    while let Some(c) = self.next().filter(|c| *c != '\'') {
                        self.push(c);
                    }
                }
                '"' => self.read_quoted(),
                '$' => self.read_variable(),
                '#' if self.word.is_none() => while self.next().is_some_and(|c| c != '\n') {},
                ' ' | '\t' | '\r' => self.end_word(),
                ';' | '\n' => self.end_pipeline(When::Always),
                '&' if self.takes('&') => self.end_pipeline(When::And),
                '&' if self.takes('>') => {
                    self.end_word();
                    self.takes('>');
                    self.to_output = Some(true);
                }
                '&' => self.end_pipeline(When::Always),
                '|' if self.takes('|') => self.end_pipeline(When::Or),
                '|' => self.end_command(),
                '>' => self.read_redirection(),
                // What would group needs no grouping here.
                '(' | ')' => self.end_word(),
                c => self.push(c),
            }
        }
        self.end_pipeline(When::Always);
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn read_quoted(&mut self) {
        self.word.get_or_insert_default();
        while let Some(c) = self.next() {
            match c {
                '"' => return,
                '\\' if matches!(self.peek(), Some('"' | '\\' | '$' | '`')) => {
                    let c = self.next();
                    c.into_iter().for_each(|c| self.push(c));
                }
                '$' => self.read_variable(),
                c => self.push(c),
            }
        }
    }

    fn read_variable(&mut self) {
        let text: String = self.rest[self.at..].iter().collect();
        if let Some(sum) = text.strip_prefix("((")
            && let Some(end) = end_of_sum(sum)
        {
            self.at += 2 + sum[..end].chars().count() + 2;
            let value = arithmetic(&sum[..end]).map_or_else(String::new, |value| value.to_string());
            self.word.get_or_insert_default().push_str(&value);
            return;
        }
        let is_braced = self.takes('{');
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
            self.at += 1;
        }
        if is_braced {
            while self.next().is_some_and(|c| c != '}') {}
        }
        let value = if name.is_empty() { "$".to_owned() } else { (self.variable)(&name) };
        self.word.get_or_insert_default().push_str(&value);
    }

    fn read_redirection(&mut self) {
        // The number before it is no word: 2> is that of errors.
        let number = self.word.take_if(|word| matches!(word.as_str(), "1" | "2"));
        self.end_word();
        self.takes('>');
        if self.takes('&') {
            // Into the other stream: there is one.
            self.next();
            return;
        }
        self.to_output = Some(number.as_deref() != Some("2"));
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        match self.to_output.take() {
            Some(true) => self.command.output = Some(word),
            Some(false) => {}
            None => self.command.words.push(word),
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        let command = std::mem::take(&mut self.command);
        if !command.words.is_empty() {
            self.commands.push(command);
        }
    }

    fn end_pipeline(&mut self, next: When) {
        self.end_command();
        let commands = std::mem::take(&mut self.commands);
        if commands.is_empty() {
            // A line that ends in && goes on in the next.
            return;
        }
        self.done.push(Pipeline { when: self.when, commands });
        self.when = next;
    }
}

/// Where the brackets that close a sum are.
fn end_of_sum(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            ')' => return text[at..].starts_with("))").then_some(at),
            _ => {}
        }
    }
    None
}

/// The value of a sum of products of numbers, with brackets.
fn arithmetic(text: &str) -> Option<i64> {
    fn sum(text: &mut &str) -> Option<i64> {
        let mut value = product(text)?;
        loop {
            *text = text.trim_start();
            if let Some(rest) = text.strip_prefix('+') {
                *text = rest;
                value = value.checked_add(product(text)?)?;
            } else if let Some(rest) = text.strip_prefix('-') {
                *text = rest;
                value = value.checked_sub(product(text)?)?;
            } else {
                return Some(value);
            }
        }
    }
    fn product(text: &mut &str) -> Option<i64> {
        let mut value = factor(text)?;
        loop {
            *text = text.trim_start();
            if let Some(rest) = text.strip_prefix('*') {
                *text = rest;
                value = value.checked_mul(factor(text)?)?;
            } else if let Some(rest) = text.strip_prefix('/') {
                *text = rest;
                value = value.checked_div(factor(text)?)?;
            } else {
                return Some(value);
            }
        }
    }
    fn factor(text: &mut &str) -> Option<i64> {
        *text = text.trim_start();
        if let Some(rest) = text.strip_prefix('(') {
            *text = rest;
            let value = sum(text)?;
            *text = text.trim_start().strip_prefix(')')?;
            return Some(value);
        }
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let value = text[..end].parse().ok()?;
        *text = &text[end..];
        Some(value)
    }
    let mut text = text;
    let value = sum(&mut text)?;
    text.trim().is_empty().then_some(value)
}

/// Whether a line has what a pattern says: `.`, `*`, `^`, `$`, `[set]`, and `|` for "or".
pub(super) fn matches(pattern: &str, line: &str) -> bool {
    let line: Vec<char> = line.chars().collect();
    pattern.replace("\\|", "|").split('|').any(|pattern| {
        let pattern: Vec<char> = pattern.chars().collect();
        match pattern.strip_prefix(&['^']) {
            Some(pattern) => matches_here(pattern, &line),
            None => (0..=line.len()).any(|start| matches_here(&pattern, &line[start..])),
        }
    })
}

fn matches_here(pattern: &[char], line: &[char]) -> bool {
    let Some(first) = pattern.first() else { return true };
    if pattern == ['$'] {
        return line.is_empty();
    }
    // One element: how long it is, and what it takes.
    let (len, set): (usize, Option<&[char]>) = match first {
        '\\' if pattern.len() > 1 => (2, Some(&pattern[1..2])),
        '.' => (1, None),
        '[' => match pattern.iter().position(|c| *c == ']') {
            Some(end) => (end + 1, Some(&pattern[1..end])),
            None => (1, Some(&pattern[..1])),
        },
        _ => (1, Some(&pattern[..1])),
    };
    let takes = |c: &char| {
        set.is_none_or(|set| {
            set.contains(c)
                || set.windows(3).any(|range| range[1] == '-' && (range[0]..=range[2]).contains(c))
        })
    };
    let rest = &pattern[len..];
    match rest.first() {
        Some('*') | Some('+') => {
            let least = usize::from(rest[0] == '+');
            let most = line.iter().take_while(|c| takes(c)).count();
            (least..=most).rev().any(|count| matches_here(&rest[1..], &line[count..]))
        }
        _ => line.first().is_some_and(takes) && matches_here(rest, &line[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<Vec<String>>> {
        let pipelines = parse(text, &|name| format!("<{name}>"));
        pipelines
            .into_iter()
            .map(|line| line.commands.into_iter().map(|command| command.words).collect())
            .collect()
    }

    #[test]
    fn words_are_split_quoted_and_expanded() {
        let text = "# nothing\nsysctl -q a.b=\"1 2 $((15*1024*(1+1)))\" \\\n  c=d 2>/dev/null ; echo 'x;y' ${PPID}.sh $HOME";
        assert_eq!(
            words(text),
            [
                vec![vec!["sysctl", "-q", "a.b=1 2 30720", "c=d"]],
                vec![vec!["echo", "x;y", "<PPID>.sh", "<HOME>"]]
            ]
        );
    }

    #[test]
    fn pipelines_know_when_they_run_and_where_output_goes() {
        let lines = parse("a | b && c > /proc/x || d &> /dev/null\ne 2>&1", &|_| String::new());
        let shape: Vec<_> = lines
            .iter()
            .map(|line| (line.when, line.commands.len(), line.commands.last().unwrap().output.as_deref()))
            .collect();
        assert_eq!(
            shape,
            [
                (When::Always, 2, None),
                (When::And, 1, Some("/proc/x")),
                (When::Or, 1, Some("/dev/null")),
                (When::Always, 1, None)
            ]
        );
        assert_eq!(lines[3].commands[0].words, ["e"]);
    }

    #[test]
    fn patterns_match() {
        for (pattern, line) in [
            ("ESTAB.*cwnd:1[0-2]", "ESTAB 0 0 cwnd:11 x"),
            ("^a*b$", "aab"),
            ("x|:1F90", "0: 0:1F90 0A"),
            (r"1\.2", "1.2"),
            ("a+b", "caab"),
        ] {
            assert!(matches(pattern, line), "{pattern} {line}");
        }
        for (pattern, line) in [("^b", "ab"), (r"1\.2", "1x2"), ("a+b", "b"), ("a$", "ab")] {
            assert!(!matches(pattern, line), "{pattern} {line}");
        }
    }
}
