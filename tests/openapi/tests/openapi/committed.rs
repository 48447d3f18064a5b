//! The generated files.

use openapi::{demonstrations, files, name, repository, routes, statements};
use std::{collections::BTreeSet, fs};

/// The names of all routes.
fn names() -> BTreeSet<String> {
    routes().iter().map(|(_, route)| name(route)).collect()
}

#[test]
fn the_committed_files_are_what_the_code_says() {
    for (path, content) in files().expect("the files") {
        let committed = fs::read_to_string(repository().join(path)).expect(path);
        assert!(committed == content, "{path} is not up to date: run `cargo run -p openapi`");
    }
}

#[test]
fn every_route_is_shown_by_a_test() {
    let shown = demonstrations().expect("the tests");
    let missing: Vec<String> = names().into_iter().filter(|name| !shown.contains_key(name)).collect();
    assert!(
        missing.is_empty(),
        "no test under tests/api/tests has one of these lines above it:\n/// `{}`",
        missing.join("`\n/// `")
    );
}

#[test]
fn tests_name_no_route_that_is_not_there() {
    let names = names();
    for (route, test) in demonstrations().expect("the tests") {
        assert!(names.contains(&route), "{} in {} names {route}", test.test, test.file);
    }
}

#[test]
fn the_statements_of_every_route_are_measured() {
    let measured: BTreeSet<String> = statements().expect("the statements").into_keys().collect();
    assert_eq!(
        measured,
        names(),
        "measure them: WRITE_STATEMENTS=1 cargo test -p api-tests --test matrix statements"
    );
}
