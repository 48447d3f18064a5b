//! Templates: strings with `{{ name }}` in them, as the manifest has them for variables and allowed hosts.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// A parsed template. It remembers the names that it refers to, so that they can be checked before any value is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Literal(String),
    Variable(String),
}

impl Template {
    /// Parses `text`. The one possible error is a `{{` without its `}}`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once("{{") {
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let Some((name, after)) = after.split_once("}}") else {
                bail!("`{{{{` without a matching `}}}}` in {text:?}");
            };
            parts.push(Part::Variable(name.trim().to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The names of the variables, in the order of the text.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// Whether there is no variable in the text, so that it means the same whatever the values.
    pub fn is_literal(&self) -> bool {
        self.variables().next().is_none()
    }

    /// Puts `values` in. A name that has no value is an error.
    pub fn resolve(&self, values: &BTreeMap<String, String>) -> Result<String> {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Literal(text) => Ok(text.as_str()),
                Part::Variable(name) => {
                    values.get(name).map(String::as_str).with_context(|| format!("unknown variable {name:?}"))
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> BTreeMap<String, String> {
        BTreeMap::from([("host".into(), "db".into()), ("port".into(), "5432".into())])
    }

    #[test]
    fn a_template_mixes_text_and_values() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("{{host}}", "db"),
            ("postgres://{{ host }}:{{port }}", "postgres://db:5432"),
            ("{{ host }}{{ host }}", "dbdb"),
            ("single { brace } stays", "single { brace } stays"),
        ] {
            assert_eq!(Template::parse(text).unwrap().resolve(&values()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_value_is_never_expanded_again() {
        let values = BTreeMap::from([("a".to_owned(), "{{ a }}".to_owned())]);
        assert_eq!(Template::parse("{{ a }}").unwrap().resolve(&values).unwrap(), "{{ a }}");
    }

    #[test]
    fn an_open_brace_without_its_end_is_an_error() {
        assert!(Template::parse("{{ host }} {{ port").is_err());
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_it() {
        let error = Template::parse("{{ nobody }}").unwrap().resolve(&values()).unwrap_err();
        assert!(error.to_string().contains("nobody"));
    }

    #[test]
    fn only_text_without_variables_is_literal() {
        assert!(Template::parse("a").unwrap().is_literal());
        assert!(!Template::parse("a{{ host }}").unwrap().is_literal());
    }
}
