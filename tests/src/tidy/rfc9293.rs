//! `docs/rfc9293.md`: every numbered requirement of RFC 9293 with the code that keeps it and the tests that show it, and
//! every deviation from any RFC. The page is generated; comments are what it is generated from.
//!
//! - Code cites an id in a comment beside the deciding line: `// RFC 9293 §3.8.6 (SHLD-14): ...`.
//! - A test names what it covers in a line `// covers: MUST-13, SHLD-4` above it or in it.
//! - `rfc9293/requirements.txt` says what each id asks, `rfc9293/reasons.txt` what code and tests cannot say.
//! - A comment `// Deviates: ...` is a deviation, up to the end of its comment.
//!
//! The page names functions, not lines, so that it changes when what it says changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::SourceFile;
use super::source::layers;

/// The page.
pub const PAGE: &str = "docs/rfc9293.md";

/// What the ids ask.
pub const REQUIREMENTS: &str = include_str!("rfc9293/requirements.txt");

/// Why some have no code or tests, and remarks.
pub const REASONS: &str = include_str!("rfc9293/reasons.txt");

/// Kinds of ids, in the order of the page, with a title and how many there are.
const KINDS: [(&str, &str, usize); 4] = [
    ("MUST", "MUST and MUST NOT", 69),
    ("SHLD", "SHOULD and SHOULD NOT", 31),
    ("MAY", "MAY", 18),
    ("REC", "RECOMMENDED", 1),
];

/// What the page says before its tables.
const HEAD: &str = "\
# RFC 9293, requirement by requirement

Generated from comments in the code and the tests: `UPDATE_SNAPSHOTS=1 cargo test -p hoststack-tests --test tidy` writes
it anew, and `tidy` fails while it is old. Ids and sections are those of the RFC (its appendix B); what each asks is said
in our own words. A comment beside the deciding line cites the id, and a test says `// covers: MUST-13` above it or in it.
";

/// Where something stands: a file, and the function or the like in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From the workspace's root.
    pub path: String,
    /// What it is called there; empty for the file as a whole.
    pub name: String,
}

impl Place {
    /// `[output::send_mss](../tcp/src/output.rs)`.
    fn link(&self) -> String {
        let stem = self.path.rsplit('/').next().unwrap_or(&self.path).trim_end_matches(".rs");
        // `mod.rs`, `lib.rs` and `tests.rs` say nothing without their folder.
        let stem = match stem {
            "mod" | "lib" | "main" | "tests" => {
                let folders: Vec<&str> = self.path.split('/').rev().skip(1).filter(|&f| f != "src").collect();
                folders.first().copied().unwrap_or(stem)
            }
            stem => stem,
        };
        let name = if self.name.is_empty() { stem.to_owned() } else { format!("{stem}::{}", self.name) };
        format!("[`{name}`](../{})", self.path)
    }
}

/// One numbered requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    id: String,
    section: String,
    words: String,
}

/// What kind of thing `reasons.txt` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReasonKind {
    /// It does not apply, is the app's, or is not done on purpose.
    No,
    /// It is done, and there is something to know of it.
    Remark,
    /// It is to come.
    Absent,
}

/// All that is known.
#[derive(Debug, Default)]
pub struct Findings {
    requirements: Vec<Requirement>,
    reasons: BTreeMap<String, (ReasonKind, String)>,
    code: BTreeMap<String, BTreeSet<Place>>,
    tests: BTreeMap<String, BTreeSet<Place>>,
    deviations: Vec<(Place, String)>,
    complaints: Vec<String>,
}

/// Whether a word has the form of an id.
fn is_id(word: &str) -> bool {
    let Some((kind, number)) = word.split_once('-') else { return false };
    KINDS.iter().any(|(name, ..)| *name == kind)
        && !number.is_empty()
        && number.bytes().all(|digit| digit.is_ascii_digit())
}

/// The words of a comment that are ids.
fn ids(comment: &str) -> impl Iterator<Item = &str> {
    comment.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).filter(|word| is_id(word))
}

/// What a line of code begins, if it begins something with a name.
fn begins(line: &str, keywords: &[&str]) -> Option<String> {
    let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    words.find(|word| keywords.contains(word))?;
    words.next().map(str::to_owned)
}

const FUNCTION: &[&str] = &["fn"];
const ITEM: &[&str] = &["fn", "struct", "enum", "trait", "const", "static", "mod", "type"];

/// A struct's field or an enum's variant, of which a doc comment speaks.
fn field(line: &str) -> Option<String> {
    let line = line.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
    let end = line.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(line.len());
    (end > 0).then(|| line[..end].to_owned())
}

/// Tests of their own, apart from the code that they test.
fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/")
        || path.starts_with("benches/")
        || path.contains("/tests/")
        || path.contains("/testing/")
        || path.ends_with("tests.rs")
        || path.ends_with("_testing.rs")
}

/// A file's lines, ready to be asked about.
struct Lines<'a> {
    path: &'a str,
    code: Vec<&'a str>,
    comments: Vec<&'a str>,
    /// The first line of `mod tests { ... }`; all after it are tests.
    tests_from: usize,
}

impl<'a> Lines<'a> {
    fn new(path: &'a str, code: &'a str, comments: &'a str) -> Lines<'a> {
        let code: Vec<&str> = code.lines().collect();
        let module = code.windows(2).position(|pair| {
            pair[0].trim() == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].contains('{')
        });
        let tests_from = if is_test_file(path) { 0 } else { module.unwrap_or(code.len()) };
        Lines { path, code, comments: comments.lines().collect(), tests_from }
    }

    fn place(&self, name: impl Into<String>) -> Place {
        Place { path: self.path.to_owned(), name: name.into() }
    }

    /// The next line of code after `number`, attributes left out.
    fn below(&self, number: usize) -> Option<&'a str> {
        let is_head = |line: &&str| line.trim().is_empty() || line.trim().starts_with("#[");
        self.code.get(number + 1..)?.iter().copied().find(|line| !is_head(line))
    }

    /// What a comment speaks of: with `///` what it documents, otherwise the function that it stands above or in.
    fn subject(&self, number: usize) -> Place {
        let comment = self.comments[number].trim();
        let below = || self.below(number);
        let above = || self.code[..=number].iter().rev().find_map(|line| begins(line, FUNCTION));
        let name = if comment.starts_with("//!") {
            None
        } else if comment.starts_with("///") {
            below().and_then(|line| begins(line, ITEM).or_else(|| field(line)))
        } else {
            below().and_then(|line| begins(line, FUNCTION)).or_else(above)
        };
        self.place(name.unwrap_or_default())
    }

    /// The test that a `// covers:` line speaks of. `Err`: what is wrong with it.
    fn test(&self, number: usize) -> Result<Place, &'static str> {
        let start = |line: &str| begins(line, FUNCTION).is_some();
        let is_above = self.below(number).is_some_and(start);
        let head = if is_above {
            self.code[number..].iter().position(|line| start(line)).map(|offset| number + offset)
        } else {
            self.code[..=number].iter().rposition(|line| start(line))
        };
        let head = head.ok_or("stands at no function")?;
        let attributes: Vec<&str> = self.code[..head]
            .iter()
            .rev()
            .map(|line| line.trim())
            .take_while(|line| line.is_empty() || line.starts_with("#["))
            .collect();
        if attributes.iter().any(|line| line.starts_with("#[ignore")) {
            return Err("covers nothing while it is ignored");
        }
        // The suites against the kernel make two tests of each function that takes a family.
        if !attributes.contains(&"#[test]") && !self.code[head].contains("(family: Family)") {
            return Err("is no test");
        }
        Ok(self.place(begins(self.code[head], FUNCTION).unwrap_or_default()))
    }

    /// The comment from line `number` on, as one text.
    fn comment_from(&self, number: usize) -> String {
        let text = |line: &'a str| line.trim().trim_start_matches('/').trim_start_matches('!').trim();
        let rest = self.comments[number..].iter().zip(&self.code[number..]);
        // Code before the comment is the first line's only.
        let block = rest.enumerate().take_while(|(n, (comment, code))| {
            !text(comment).is_empty() && (*n == 0 || code.trim().is_empty())
        });
        block.map(|(_, (comment, _))| text(comment)).collect::<Vec<_>>().join(" ")
    }
}

/// Reads the two lists and all comments.
#[must_use]
pub fn find(files: &[SourceFile], requirements: &str, reasons: &str) -> Findings {
    let mut found = Findings::default();
    found.read_lists(requirements, reasons);
    for file in files.iter().filter(|file| file.is_rust()) {
        if !file.text.contains("Deviates") && !KINDS.iter().any(|(kind, ..)| file.text.contains(*kind)) {
            continue;
        }
        let layers = layers(&file.text);
        found.read_file(&Lines::new(&file.path, &layers.code, &layers.comments));
    }
    found.judge();
    found
}

impl Findings {
    fn read_lists(&mut self, requirements: &str, reasons: &str) {
        let rows = |text: &str| -> Vec<[String; 3]> {
            let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
            lines
                .map(|line| {
                    let mut cells = line.splitn(3, " | ").map(str::to_owned);
                    [(); 3].map(|()| cells.next().unwrap_or_default())
                })
                .collect()
        };
        for [id, section, words] in rows(requirements) {
            if !is_id(&id) || section.is_empty() || words.is_empty() {
                self.complaints.push(format!("requirements.txt: `{id}` is not `id | section | words`"));
            } else if self.requirements.iter().any(|other| other.id == id) {
                self.complaints.push(format!("requirements.txt has {id} twice"));
            } else {
                self.requirements.push(Requirement { id, section, words });
            }
        }
        for [id, kind, text] in rows(reasons) {
            let kind = match kind.as_str() {
                "no" => ReasonKind::No,
                "remark" => ReasonKind::Remark,
                "absent" => ReasonKind::Absent,
                _ => {
                    self.complaints.push(format!("reasons.txt: {id} is neither `no`, `remark` nor `absent`"));
                    continue;
                }
            };
            if text.len() < 10 {
                self.complaints.push(format!("reasons.txt says nothing of {id}"));
            }
            if self.reasons.insert(id.clone(), (kind, text)).is_some() {
                self.complaints.push(format!("reasons.txt has {id} twice"));
            }
        }
    }

    fn is_known(&self, id: &str) -> bool {
        self.requirements.iter().any(|requirement| requirement.id == id)
    }

    fn read_file(&mut self, lines: &Lines<'_>) {
        for (number, comment) in lines.comments.iter().enumerate() {
            let comment = comment.trim();
            for id in ids(comment) {
                if !self.is_known(id) {
                    self.complaints.push(format!("{}:{}: RFC 9293 has no {id}", lines.path, number + 1));
                }
            }
            if let Some(covered) = comment.strip_prefix("// covers: ") {
                match (ids(covered).next(), lines.test(number)) {
                    (None, _) => {}
                    (Some(_), Ok(test)) => {
                        for id in ids(covered) {
                            self.tests.entry(id.to_owned()).or_default().insert(test.clone());
                        }
                    }
                    (Some(id), Err(fault)) => {
                        let at = format!("{}:{}", lines.path, number + 1);
                        self.complaints.push(format!("{at}: what covers {id} {fault}"));
                    }
                }
            } else if number < lines.tests_from {
                for id in ids(comment) {
                    self.code.entry(id.to_owned()).or_default().insert(lines.subject(number));
                }
                if let Some(at) = comment.find("Deviates")
                    && comment[..at].trim_end_matches(' ').chars().all(|c| "/!".contains(c))
                {
                    let text = lines.comment_from(number);
                    let text = text.trim_start_matches("Deviates").trim_start_matches(':').trim();
                    self.deviations.push((lines.subject(number), text.to_owned()));
                }
            }
        }
    }

    /// What the tables will not say by themselves.
    fn judge(&mut self) {
        let mut complaints = Vec::new();
        for Requirement { id, .. } in &self.requirements {
            let (code, test) = (self.code.contains_key(id), self.tests.contains_key(id));
            match self.reasons.get(id) {
                Some((ReasonKind::No | ReasonKind::Absent, _)) if code && test => {
                    complaints.push(format!(
                        "{id} has code and tests: its reason in reasons.txt is no longer true"
                    ));
                }
                Some((ReasonKind::No | ReasonKind::Absent, _)) => {}
                // What is only allowed or advised may be left out, but not without a word.
                _ if !code || !test => {
                    let missing = match (code, test) {
                        (false, false) => "neither code nor tests",
                        (false, true) => "no code",
                        _ => "no test",
                    };
                    complaints.push(format!("{id} has {missing}, and reasons.txt does not say why"));
                }
                _ => {}
            }
        }
        let stray = self.reasons.keys().filter(|id| !self.is_known(id));
        complaints.extend(stray.map(|id| format!("reasons.txt: RFC 9293 has no {id}")));
        self.complaints.extend(complaints);
    }

    /// Everything that is wrong, one sentence each.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// The page as it should be.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = HEAD.to_owned();
        let absent = |id: &str| matches!(self.reasons.get(id), Some((ReasonKind::Absent, _)));
        let left_out = |id: &str| matches!(self.reasons.get(id), Some((ReasonKind::No, _)));
        page += "\n| | in all | kept | left out | to come |\n| --- | --- | --- | --- | --- |\n";
        for (kind, title, _) in KINDS {
            let of_kind = || self.of_kind(kind).map(|requirement| requirement.id.as_str());
            let (all, no) = (of_kind().count(), of_kind().filter(|id| left_out(id)).count());
            let to_come = of_kind().filter(|id| absent(id)).count();
            let kept = all - no - to_come;
            let _ = writeln!(page, "| {title} | {all} | {kept} | {no} | {to_come} |");
        }
        for (kind, title, _) in KINDS {
            let _ = write!(
                page,
                "\n## {title}\n\n| id | § | what it asks | code | tests |\n| --- | --- | --- | --- | --- |\n"
            );
            for requirement in self.of_kind(kind) {
                self.row(requirement, &mut page);
            }
        }
        page += "\n## Deviations\n\nWhere the code does otherwise than an RFC says, it says so (`// Deviates:`).\n\n";
        for (place, text) in &self.deviations {
            let _ = writeln!(page, "- {}: {}", place.link(), escaped(text));
        }
        page
    }

    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Requirement> {
        self.requirements.iter().filter(move |r| r.id.split_once('-').is_some_and(|(k, _)| k == kind))
    }

    fn row(&self, requirement: &Requirement, page: &mut String) {
        let Requirement { id, section, words } = requirement;
        let links = |places: Option<&BTreeSet<Place>>| {
            let links = places.into_iter().flatten().map(Place::link);
            links.collect::<Vec<_>>().join(", ")
        };
        let (mut code, tests) = (links(self.code.get(id)), links(self.tests.get(id)));
        if let Some((kind, text)) = self.reasons.get(id) {
            let lead = match kind {
                ReasonKind::No | ReasonKind::Remark => "",
                ReasonKind::Absent => "**To come.** ",
            };
            let gap = if code.is_empty() { "" } else { ". " };
            let _ = write!(code, "{gap}{lead}{}", escaped(text));
        }
        let _ = writeln!(page, "| {id} | {section} | {} | {code} | {tests} |", escaped(words));
    }
}

/// Text that a table's cell and Markdown leave as it is.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// The numbers of each kind that `requirements` should have: all, in order.
#[must_use]
pub fn gaps(requirements: &str) -> Vec<String> {
    let entries = requirements.lines().filter(|line| !line.starts_with('#'));
    let listed: Vec<&str> = entries.filter_map(|line| line.split(" | ").next()).collect();
    let expected = KINDS.iter().flat_map(|(kind, _, last)| (1..=*last).map(move |n| format!("{kind}-{n}")));
    let expected: Vec<String> = expected.collect();
    if listed == expected {
        Vec::new()
    } else {
        vec!["requirements.txt is not the RFC's list in order".to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# x\nMUST-1 | 3.1 | One.\nMUST-2 | 3.2 | Two.\nSHLD-1 | 3.3 | Three.\n";
    const WHY: &str = "SHLD-1 | no | Nobody has such a thing.\n";
    const CODE: &str = "/// What it does (MUST-1).\nfn one() {\n    // RFC 9293 §3.2 (MUST-2): so.\n    act();\n}\n\
                        // Deviates: RFC 1 wants more | less,\n// and <this> is better.\nfn two() {}\n";
    const TESTS: &str = "// covers: MUST-1, H07\n#[test]\nfn first() {}\n\n#[test]\nfn second() {\n    // covers: MUST-2\n}\n";

    fn found(code: &str, tests: &str, reasons: &str) -> Findings {
        let files = [SourceFile::new("tcp/src/a.rs", code), SourceFile::new("tcp/src/tests/b.rs", tests)];
        find(&files, LIST, reasons)
    }

    #[test]
    fn a_requirement_has_its_code_its_tests_and_its_reason() {
        let findings = found(CODE, TESTS, WHY);
        assert_eq!(findings.complaints(), [""; 0]);
        let page = findings.page();
        for line in [
            "| MUST and MUST NOT | 2 | 2 | 0 | 0 |",
            "| SHOULD and SHOULD NOT | 1 | 0 | 1 | 0 |",
            "| MUST-1 | 3.1 | One. | [`a::one`](../tcp/src/a.rs) | [`b::first`](../tcp/src/tests/b.rs) |",
            "| MUST-2 | 3.2 | Two. | [`a::one`](../tcp/src/a.rs) | [`b::second`](../tcp/src/tests/b.rs) |",
            "| SHLD-1 | 3.3 | Three. | Nobody has such a thing. |  |",
            "- [`a::two`](../tcp/src/a.rs): RFC 1 wants more \\| less, and &lt;this> is better.",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }

    #[test]
    fn what_has_lost_its_code_or_its_test_needs_a_reason() {
        let says = |code: &str, tests: &str, reasons| found(code, tests, reasons).complaints().to_vec();
        let no_code = CODE.replace("(MUST-2)", "");
        assert_eq!(says(&no_code, TESTS, WHY), ["MUST-2 has no code, and reasons.txt does not say why"]);
        let no_test = TESTS.replace("// covers: MUST-2", "");
        assert_eq!(says(CODE, &no_test, WHY), ["MUST-2 has no test, and reasons.txt does not say why"]);
        assert_eq!(
            says(CODE, TESTS, ""),
            ["SHLD-1 has neither code nor tests, and reasons.txt does not say why"]
        );
        let remark = format!("{WHY}MUST-2 | remark | It is so and so.\n");
        assert_eq!(says(CODE, &no_test, &remark).len(), 1, "a remark excuses nothing");
        let absent = format!("{WHY}MUST-2 | absent | It is to come.\n");
        assert_eq!(says(CODE, &no_test, &absent), [""; 0]);
        assert_eq!(says(CODE, TESTS, &absent).len(), 1, "and it must go when it has come");
    }

    #[test]
    fn a_covers_line_stands_at_a_test_that_runs() {
        for (from, to, fault) in [
            ("#[test]\nfn first", "fn first", "is no test"),
            (
                "#[test]\nfn first",
                "#[test]\n#[ignore = \"x\"]\nfn first",
                "covers nothing while it is ignored",
            ),
        ] {
            let complaints = found(CODE, &TESTS.replace(from, to), WHY).complaints().to_vec();
            assert_eq!(complaints[0], format!("tcp/src/tests/b.rs:1: what covers MUST-1 {fault}"));
            assert_eq!(complaints.len(), 2, "and MUST-1 has no test");
        }
        let nowhere = found(CODE, "// covers: MUST-1\n", WHY);
        assert!(nowhere.complaints()[0].ends_with("stands at no function"));
        let kernel = TESTS.replace("#[test]\nfn first()", "fn first(family: Family)");
        assert_eq!(found(CODE, &kernel, WHY).complaints(), [""; 0]);
    }

    #[test]
    fn ids_that_the_rfc_does_not_have_are_found_in_code_tests_and_reasons() {
        let complaints = |code: &str, tests: &str, why: &str| found(code, tests, why).complaints().to_vec();
        let code = CODE.replace("(MUST-1)", "(MUST-1, MUST-99)");
        assert_eq!(complaints(&code, TESTS, WHY), ["tcp/src/a.rs:1: RFC 9293 has no MUST-99"]);
        let tests = TESTS.replace("H07", "SHLD-77");
        assert_eq!(complaints(CODE, &tests, WHY), ["tcp/src/tests/b.rs:1: RFC 9293 has no SHLD-77"]);
        let why = format!("{WHY}MAY-7 | no | It does not exist.\n");
        assert_eq!(complaints(CODE, TESTS, &why), ["reasons.txt: RFC 9293 has no MAY-7"]);
    }

    #[test]
    fn test_modules_are_no_code_and_strings_are_no_comments() {
        let inside = "fn one() {}\n#[cfg(test)]\nmod tests {\n    // MUST-1, MUST-2\n    // Deviates: no\n    fn x() {}\n}\n";
        let findings = found(inside, "let text = \"// covers: MUST-1\";", "");
        assert!(findings.code.is_empty() && findings.tests.is_empty() && findings.deviations.is_empty());
    }

    #[test]
    fn a_doc_comment_speaks_of_what_it_documents() {
        let code = "struct S {\n    /// So (MUST-1).\n    #[x]\n    pub one: u8,\n}\n/// And (MUST-2)\n/// so.\npub(crate) struct T;\n";
        let findings = found(code, TESTS, WHY);
        let name = |id: &str| findings.code[id].first().map(|place| place.name.clone());
        assert_eq!((name("MUST-1").as_deref(), name("MUST-2").as_deref()), (Some("one"), Some("T")));
    }

    #[test]
    fn the_list_is_the_rfcs() {
        assert_eq!(gaps(REQUIREMENTS), [""; 0]);
        assert_eq!(gaps(&REQUIREMENTS.replace("MUST-22 |", "MUST-70 |")).len(), 1);
    }
}
