//! Pages that answer a list of old bugs, against the tests: the page has every id of its list, each with a test that says
//! so or with a reason. `docs/races.md` and `docs/establishment.md` are such.

use std::collections::{BTreeMap, BTreeSet};

use super::SourceFile;
use super::source::layers;

/// A page, and the ids that it has to answer.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Where it is.
    pub path: &'static str,
    /// Every id there is: a letter, and the first and last number of each run without a gap.
    pub ids: &'static [(char, u32, u32)],
}

/// Bugs of connections that come up, and of whatever crosses threads.
pub const RACES: Page = Page {
    path: "docs/races.md",
    ids: &[
        ('H', 1, 48),
        ('H', 50, 56),
        ('H', 60, 73),
        ('N', 1, 12),
        ('D', 1, 16),
        ('M', 1, 7),
        ('E', 1, 16),
        ('T', 1, 7),
        ('G', 1, 4),
    ],
};

/// Bugs of establishment, and the invariants that would have kept them away.
pub const ESTABLISHMENT: Page = Page { path: "docs/establishment.md", ids: &[('F', 1, 49), ('I', 1, 18)] };

/// Where a file that the page names without a folder is.
const FOLDER: &str = "stack/tests";

/// A test, as file and name.
type Test = (String, String);

/// All of `ids` written out.
fn written_out(ids: &[(char, u32, u32)]) -> BTreeSet<String> {
    ids.iter()
        .flat_map(|&(letter, first, last)| (first..=last).map(move |number| format!("{letter}{number:02}")))
        .collect()
}

/// Whether a word is an id of this page: one of its letters and two digits. `MUST-13` and its like are other pages'.
fn is_id(word: &str, page: &Page) -> bool {
    let Some((letter, digits)) = word.split_at_checked(1) else { return false };
    page.ids.iter().any(|(known, ..)| letter.starts_with(*known))
        && digits.len() == 2
        && digits.bytes().all(|digit| digit.is_ascii_digit())
}

/// The name of the function that a line of code begins.
fn function(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("fn ")?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    (end > 0).then(|| &rest[..end])
}

/// What tests say that they cover, in lines `// covers: H01, N02` above them or in them.
#[must_use]
pub fn covered(files: &[SourceFile], page: &Page) -> BTreeMap<String, BTreeSet<Test>> {
    let mut covered: BTreeMap<String, BTreeSet<Test>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.is_rust() && file.text.contains("covers: ")) {
        let layers = layers(&file.text);
        let code: Vec<&str> = layers.code.lines().collect();
        for (number, comment) in layers.comments.lines().enumerate() {
            let Some(words) = comment.trim().strip_prefix("// covers: ") else { continue };
            let is_head = |line: &&&str| line.trim().is_empty() || line.trim().starts_with("#[");
            let below = code[number..].iter().find(|line| !is_head(line)).and_then(|line| function(line));
            let above = || code[..number].iter().rev().find_map(|line| function(line));
            let name = below.or_else(above).unwrap_or("nothing");
            for word in words.split([',', ' ']).filter(|word| is_id(word, page)) {
                covered.entry(word.to_owned()).or_default().insert((file.path.clone(), name.to_owned()));
            }
        }
    }
    covered
}

/// A row of the page: what it says of an id.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    id: String,
    tests: Vec<Test>,
    has_reason: bool,
}

/// Rows of the page's tables: `| id | what there was | tests and reason |`.
fn rows(page: &Page, text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in text.lines() {
        let mut cells = line.trim().trim_matches('|').split('|').map(str::trim);
        let (Some(id), Some(_), Some(here)) = (cells.next(), cells.next(), cells.next()) else { continue };
        if !is_id(id, page) {
            continue;
        }
        let spans = here.split('`').skip(1).step_by(2);
        let named = spans.filter_map(|span| span.rsplit_once("::"));
        // `file::test`: tests begin with a small letter, as no type's method that a reason names does after its type.
        let is_file = |file: &str| !file.contains("::") && !file.starts_with(|c: char| c.is_uppercase());
        let tests = named
            .filter(|(file, _)| is_file(file))
            .map(|(file, test)| {
                let folder = if file.contains('/') { String::new() } else { format!("{FOLDER}/") };
                (format!("{folder}{file}.rs"), test.to_owned())
            })
            .collect();
        let prose: String = here.split('`').step_by(2).collect();
        let has_reason = prose.chars().filter(|c| c.is_alphabetic()).count() > 10;
        rows.push(Row { id: id.to_owned(), tests, has_reason });
    }
    rows
}

/// Differences between the list of ids, the page and the tests.
#[must_use]
pub fn complaints(files: &[SourceFile], page: &Page, text: &str) -> Vec<String> {
    let (ids, covered, rows) = (written_out(page.ids), covered(files, page), rows(page, text));
    let path_of_page = page.path;
    let mut complaints = Vec::new();
    for id in &ids {
        let count = rows.iter().filter(|row| row.id == *id).count();
        if count != 1 {
            complaints.push(format!("{path_of_page} has {id} {count} times"));
        }
    }
    let nobody = BTreeSet::new();
    for Row { id, tests, has_reason } in &rows {
        if !ids.contains(id) {
            complaints.push(format!("{path_of_page} has {id}, which is not in the list"));
        }
        if tests.is_empty() && !has_reason {
            complaints.push(format!("{path_of_page} gives {id} neither a test nor a reason"));
        }
        let carriers = covered.get(id).unwrap_or(&nobody);
        for test in tests.iter().filter(|test| !carriers.contains(*test)) {
            let (path, name) = test;
            complaints.push(format!(
                "{path_of_page} gives {id} to {path}::{name}, which does not say that it covers it"
            ));
        }
        for (path, name) in carriers.iter().filter(|test| !tests.contains(test)) {
            complaints.push(format!("{path}::{name} covers {id}, which {path_of_page} does not say"));
        }
    }
    let unknown = covered.iter().filter(|(id, _)| !rows.iter().any(|row| row.id == **id));
    for (id, tests) in unknown {
        let (path, name) = tests.first().map_or(("", ""), |(path, name)| (path.as_str(), name.as_str()));
        complaints.push(format!("{path}::{name} covers {id}, which is not in {path_of_page}"));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Page = Page { path: "docs/races.md", ids: &[('H', 1, 2), ('N', 1, 1), ('T', 1, 1)] };
    const TESTS: &str = "/// Says what.\n// covers: H01, N01 MUST-13\n#[test]\n#[ignore = \"x\"]\nfn one() {}\n\n\
                         fn two() {\n    // covers: H01\n    act();\n}\n";
    const GOOD: &str = "| id | what | here |\n| --- | --- | --- |\n\
                        | H01 | x | `a::one`, `stack/tests/a::two` |\n\
                        | H02 | x | It cannot: `Main::fail` is the only place. |\n\
                        | N01 | x | `a::one`. And `Outbox` keeps it. |\n\
                        | T01 | x | There are no threads here. |\n";

    fn found(text: &str, page: &str) -> Vec<String> {
        complaints(&[SourceFile::new("stack/tests/a.rs", text)], &PAGE, page)
    }

    #[test]
    fn a_page_that_agrees_with_its_tests_is_good() {
        assert_eq!(found(TESTS, GOOD), [""; 0]);
    }

    #[test]
    fn an_id_is_on_the_page_once_and_in_the_list() {
        let without = GOOD.replace("| H02 |", "| H03 |");
        assert_eq!(found(TESTS, &without).len(), 2, "one is missing, one is not known");
        let twice = format!("{GOOD}| H02 | x | It cannot, and it cannot. |\n");
        assert_eq!(found(TESTS, &twice), ["docs/races.md has H02 2 times"]);
    }

    #[test]
    fn a_row_needs_a_test_or_a_reason() {
        for nothing in ["", "-", "`Main::fail`", "n/a"] {
            let page = GOOD.replace("It cannot: `Main::fail` is the only place.", nothing);
            assert_eq!(
                found(TESTS, &page),
                ["docs/races.md gives H02 neither a test nor a reason"],
                "{nothing}"
            );
        }
    }

    #[test]
    fn a_test_that_the_page_names_exists_and_says_the_id() {
        let gone = TESTS.replace("fn two", "fn three");
        assert_eq!(found(&gone, GOOD).len(), 2, "the page names one, the code has another");
        let silent = TESTS.replace("// covers: H01\n", "");
        assert_eq!(found(&silent, GOOD).len(), 1);
        assert!(
            found(TESTS, &GOOD.replace("`a::one`,", "`b::one`,")).iter().any(|c| c.contains("b.rs::one"))
        );
    }

    #[test]
    fn an_id_that_a_test_covers_is_on_the_page_with_that_test() {
        let more = TESTS.replace("H01, N01", "H01, N01, H02");
        assert_eq!(
            found(&more, GOOD),
            ["stack/tests/a.rs::one covers H02, which docs/races.md does not say"]
        );
        let unknown = TESTS.replace("H01, N01", "H01, N01, T09");
        assert_eq!(
            found(&unknown, GOOD),
            ["stack/tests/a.rs::one covers T09, which is not in docs/races.md"]
        );
    }

    #[test]
    fn ids_of_other_pages_and_words_in_strings_are_not_looked_at() {
        let other = "let text = \"// covers: H99\";\n// covers: MUST-5 H1 H123 RFC9293\nfn three() {}\n";
        assert_eq!(found(&format!("{TESTS}{other}"), GOOD), [""; 0]);
    }

    #[test]
    fn the_lists_have_all_ids() {
        let ids = written_out(RACES.ids);
        assert_eq!(ids.len(), 48 + 7 + 14 + 12 + 16 + 7 + 16 + 7 + 4);
        assert!(ids.iter().all(|id| is_id(id, &RACES)) && !ids.contains("H49") && ids.contains("H73"));
        assert_eq!(written_out(ESTABLISHMENT.ids).len(), 49 + 18);
        assert!(!is_id("H01", &ESTABLISHMENT) && is_id("F49", &ESTABLISHMENT));
    }
}
