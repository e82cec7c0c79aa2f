//! `show config`: what the stack was built with.

use hoststack::inspect::ConfigItem;

use crate::table::{Column, Table};

/// A line per setting; `*` marks those that are not the default. `all`: those that are, too.
pub(crate) fn config(items: &[ConfigItem], all: bool) -> String {
    let mut table = Table::new(&[Column::Left(""), Column::Left("setting"), Column::Left("value")]);
    for item in items.iter().filter(|item| all || !item.is_default) {
        let mark = if item.is_default { "" } else { "*" };
        table.row([mark.to_owned(), item.name.clone(), item.value.clone()]);
    }
    if table.is_empty() {
        return "all settings are the defaults\n".to_owned();
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_default_is_marked_and_shown_alone_unless_all_is_wanted() {
        let item = |name: &str, value: &str, is_default| ConfigItem {
            name: name.into(),
            value: value.into(),
            is_default,
        };
        let items = [item("workers", "4", false), item("tcp.time_wait", "60s", true)];
        assert_eq!(config(&items, false), "   setting  value\n*  workers  4\n");
        assert_eq!(
            config(&items, true),
            "   setting        value\n*  workers        4\n   tcp.time_wait  60s\n"
        );
        assert_eq!(config(&items[1..], false), "all settings are the defaults\n");
    }
}
