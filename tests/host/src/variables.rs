//! The values of the application's variables, and what of them each component sees.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::manifest::{Manifest, Variable};
use crate::template::Template;

/// The value of every variable that the manifest declares: from `given`, else from `environment` (asked for
/// `SPIN_VARIABLE_<NAME>`), else its default.
///
/// Errors name every required variable that has no value, and every given one that isn't declared.
pub(crate) fn resolve(
    declared: &BTreeMap<String, Variable>,
    given: &BTreeMap<String, String>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>> {
    let unknown: Vec<&str> =
        given.keys().filter(|name| !declared.contains_key(*name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        bail!("the manifest has no variable named {}", unknown.join(", "));
    }
    let mut values = BTreeMap::new();
    let mut missing = Vec::new();
    for (name, variable) in declared {
        let value = given
            .get(name)
            .cloned()
            .or_else(|| environment(&environment_name(name)))
            .or_else(|| variable.default.clone());
        match value {
            Some(value) => _ = values.insert(name.clone(), value),
            None => missing.push(format!("{name} ({})", environment_name(name))),
        }
    }
    if !missing.is_empty() {
        bail!("these required variables have no value: {}", missing.join(", "));
    }
    Ok(values)
}

/// The variables of one component, with all templates resolved.
pub(crate) fn of_component(
    manifest: &Manifest,
    component: &str,
    values: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    manifest.component[component]
        .variables
        .iter()
        .map(|(name, text)| {
            let value = Template::parse(text)
                .and_then(|template| template.resolve(values))
                .with_context(|| format!("[component.{component}.variables] {name}"))?;
            Ok((name.clone(), value))
        })
        .collect()
}

fn environment_name(variable: &str) -> String {
    format!("SPIN_VARIABLE_{}", variable.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> BTreeMap<String, Variable> {
        toml::from_str(
            r#"
            color = { default = "from the manifest" }
            database_host = { required = true }
            secret_key = { required = true, secret = true }
            "#,
        )
        .unwrap()
    }

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_given_value_beats_the_environment_which_beats_the_default() {
        let environment = |name: &str| (name != "SPIN_VARIABLE_COLOR").then(|| format!("{name}!"));
        let values = resolve(&declared(), &given(&[("secret_key", "s")]), environment).unwrap();
        assert_eq!(values["color"], "from the manifest");
        assert_eq!(values["database_host"], "SPIN_VARIABLE_DATABASE_HOST!");
        assert_eq!(values["secret_key"], "s");
    }

    #[test]
    fn all_missing_variables_are_named_at_once() {
        let error = resolve(&declared(), &BTreeMap::new(), |_| None).unwrap_err().to_string();
        assert!(error.contains("database_host (SPIN_VARIABLE_DATABASE_HOST)"), "{error}");
        assert!(error.contains("secret_key (SPIN_VARIABLE_SECRET_KEY)"), "{error}");
        assert!(!error.contains("color"), "{error}");
    }

    #[test]
    fn a_given_variable_that_is_not_declared_is_an_error() {
        let error = resolve(&declared(), &given(&[("colour", "red")]), |_| Some("x".into())).unwrap_err();
        assert!(error.to_string().contains("colour"));
    }

    #[test]
    fn an_empty_value_is_a_value() {
        let values = resolve(&declared(), &BTreeMap::new(), |_| Some(String::new())).unwrap();
        assert_eq!(values["secret_key"], "");
    }
}
