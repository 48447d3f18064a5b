//! Which test shows a route: a line above it names the route.

use anyhow::{Context, Result};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A test that is about a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demonstration {
    /// The test's name.
    pub test: String,
    /// Its file, relative to the repository, with slashes.
    pub file: String,
}

/// For each route that a black-box test names, the first such test, by the files' paths.
///
/// A test names its route in a line of its documentation with nothing else in it: ``/// `POST /api/teams/create` ``.
pub fn demonstrations() -> Result<BTreeMap<String, Demonstration>> {
    let mut found = BTreeMap::new();
    for file in sources(&crate::repository().join("tests/api/tests"))? {
        let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        let path = file.strip_prefix(crate::repository())?.to_string_lossy().replace('\\', "/");
        for (route, test) in named(&text) {
            let demonstration = Demonstration { test: test.to_owned(), file: path.clone() };
            found.entry(route.to_owned()).or_insert(demonstration);
        }
    }
    Ok(found)
}

/// The Rust files of a folder and the folders in it, in alphabetical order.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>())
        .with_context(|| format!("can't list {}", folder.display()))?;
    paths.sort();
    let mut files = vec![];
    for path in paths {
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// The routes that a file's tests name, each with the function that follows.
fn named(text: &str) -> Vec<(&str, &str)> {
    let mut waiting = vec![];
    let mut found = vec![];
    for line in text.lines().map(str::trim) {
        if let Some(route) = line.strip_prefix("/// `").and_then(|rest| rest.strip_suffix('`')) {
            let is_route =
                route.split_once(" /").is_some_and(|(verb, _)| verb.bytes().all(|b| b.is_ascii_uppercase()));
            if is_route {
                waiting.push(route);
            }
        } else if let Some((_, rest)) = line.split_once("fn ") {
            let name = rest.split('(').next().unwrap_or_default();
            found.extend(waiting.drain(..).map(|route| (route, name)));
        } else if !line.starts_with("///") && !line.starts_with("#[") {
            waiting.clear();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn a_line_with_a_route_and_nothing_else_belongs_to_the_function_below() {
        let text = "
            /// Prose about `POST /not/this`.
            /// `GET /a`
            /// `PUT /a/{b}`
            #[tokio::test]
            async fn first() {}

            /// `GET /lost`
            const NOT_A_FUNCTION: u8 = 0;

            /// `lower /case`
            fn second() {}
        ";
        assert_eq!(named(text), [("GET /a", "first"), ("PUT /a/{b}", "first")]);
    }
}
