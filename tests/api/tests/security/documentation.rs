//! `docs/security.md` and `docs/reliability.md` name tests that are there.

use api_tests::repository;
use std::fs;

#[test]
fn every_test_that_the_documentation_names_exists_where_it_says() {
    for name in ["security.md", "reliability.md"] {
        check_links(name);
    }
}

fn check_links(page: &str) {
    let folder = repository().join("docs");
    let text = fs::read_to_string(folder.join(page)).expect(page);
    let links = text.split('[').filter_map(|text| text.split_once("](")).map(|(name, rest)| {
        let (path, _) = rest.split_once(')').expect("the end of a link");
        (name, path)
    });
    let mut tests = 0;
    for (name, path) in links {
        let file = fs::read_to_string(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        if path.ends_with(".rs") {
            let function = format!("fn {}() {{", name.replace(' ', "_"));
            assert!(file.contains(&function), "{page}: {path} has no `{function}`");
            tests += 1;
        }
    }
    assert!(tests > 30, "only {tests} tests are named in {page}");
}

/// A test that nobody looks for in the table may as well not be there.
#[test]
fn every_test_here_is_named_in_the_documentation() {
    let page = fs::read_to_string(repository().join("docs/security.md")).expect("docs/security.md");
    let folder = repository().join("tests/api/tests/security");
    for file in fs::read_dir(folder).expect("the tests") {
        let path = file.expect("a file").path();
        let source = fs::read_to_string(&path).expect("a source file");
        for test in source.split("#[tokio::test]\nasync fn ").skip(1) {
            let (name, _) = test.split_once('(').expect("a function");
            assert!(page.contains(&format!("[{}](", name.replace('_', " "))), "{name} of {}", path.display());
        }
    }
}
