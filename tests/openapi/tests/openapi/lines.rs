//! Lines that fit beside each other on a screen, in code, SQL and text.

use openapi::repository;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The most characters of a line.
const MOST: usize = 120;

/// Folders with what was generated or measured, or isn't ours.
const SKIPPED: [&str; 5] = ["target", ".git", ".data", "results", "corpus"];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !SKIPPED.contains(&name) {
            files(&path, found);
        } else if path.extension().is_some_and(|kind| ["rs", "sql", "md"].iter().any(|known| kind == *known))
        {
            found.push(path);
        }
    }
}

/// A row of a table in Markdown is one line, and text that is data of a test stays as it is.
fn may_be_longer(path: &Path, line: &str) -> bool {
    match path.extension().and_then(|kind| kind.to_str()) {
        Some("md") => line.starts_with('|') || path.ends_with("docs/api.md"),
        Some("rs") => line.contains("r#") || line.starts_with("database_address = "),
        _ => false,
    }
}

#[test]
fn no_line_is_longer_than_a_screen_is_wide() {
    let mut all = vec![];
    files(repository(), &mut all);
    assert!(all.len() > 300, "{} files", all.len());
    let mut long = vec![];
    for path in all {
        let text = fs::read_to_string(&path).expect("text");
        let lines = text.lines().zip(1..).filter(|(line, _)| line.chars().count() > MOST);
        long.extend(
            lines
                .filter(|(line, _)| !may_be_longer(&path, line))
                .map(|(_, number)| format!("{}:{number}", path.display())),
        );
    }
    assert!(long.is_empty(), "{long:#?}");
}
