//! `docs/api.md`.

use crate::{Demonstration, demonstrations, errors, name, routes, statements};
use anyhow::Result;
use shared::{
    error::Code,
    http::{Access, api::Route},
};
use std::collections::{BTreeMap, BTreeSet};

const INTRODUCTION: &str = "\
# The API

Made from the code by `cargo run -p openapi`; a test fails when it is not up to date. What each request takes and \
answers is in
[openapi.json](openapi.json), which the application serves at `/openapi.json` and shows at `/docs` and `/redoc`.

| route | who may call | what it does | SQL statements | shown by |
| --- | --- | --- | --- | --- |
";

const STATEMENTS: &str = "
The statements are those of a successful request with a known key, by the function of `migrations/` that each calls, as
`tests/api/tests/matrix/statements.rs` measured them with `pg_stat_statements`. A key that the cache does not know \
costs one more, `lookup_key`.

## Errors

The body of every error is `{\"detail\": \"…\", \"code\": \"…\"}`; under `/v1/` it has OpenAI's form, with the same \
`code`.

| status | code | meaning |
| --- | --- | --- |
";

/// The text of `docs/api.md`. What has no measured statements or no test that shows it gets a dash; tests complain
/// about those.
pub fn table() -> Result<String> {
    let (shown, measured) = (demonstrations()?, statements()?);
    let mut text = INTRODUCTION.to_owned();
    for (_, route) in routes() {
        let name = name(&route);
        let statements = measured.get(&name).map_or("–".to_owned(), statements_of);
        let test = shown.get(&name).map_or("–".to_owned(), link);
        text += &format!(
            "| `{name}` | {} | {} | {statements} | {test} |\n",
            who(&route),
            route.operation.summary.as_deref().unwrap_or_default()
        );
    }
    text += STATEMENTS;
    let mut codes = Code::ALL;
    codes.sort_by_key(|code| code.answer().0);
    for code in codes {
        let (status, word) = code.answer();
        text += &format!("| {} | `{word}` | {} |\n", status.as_u16(), errors::meaning(code));
    }
    Ok(text)
}

/// The statements of a route; by who makes the request, where that makes a difference.
fn statements_of(by_caller: &BTreeMap<String, Vec<String>>) -> String {
    let told = |functions: &Vec<String>| match functions.as_slice() {
        [] => "none".to_owned(),
        functions => functions.iter().map(|function| format!("`{function}`")).collect::<Vec<_>>().join(", "),
    };
    let different: BTreeSet<&Vec<String>> = by_caller.values().collect();
    match different.first() {
        Some(same) if different.len() == 1 => told(same),
        _ => {
            let by_caller =
                by_caller.iter().map(|(caller, functions)| format!("{caller}: {}", told(functions)));
            by_caller.collect::<Vec<_>>().join("; ")
        }
    }
}

fn who(route: &Route) -> &'static str {
    match route.access {
        Access::Public => "anybody",
        Access::Admin => "admin",
        Access::Team => "team",
        Access::AdminOrTeam => "admin, team",
    }
}

fn link(Demonstration { test, file }: &Demonstration) -> String {
    format!("[{}](../{file})", test.replace('_', " "))
}
