//! The manifest, `spin.toml`: what of Spin's second version of it this host understands, and the rules for it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use toml::Value;

use crate::allowed_hosts::AllowedHost;
use crate::identifiers::{check_kebab, check_label, check_lower_snake};
use crate::template::Template;

/// The one key-value store that needs no runtime configuration.
pub(crate) const DEFAULT_STORE: &str = "default";

/// A manifest that follows all the rules. Keys that Spin does not know are errors, and so are those that this host
/// can't honour.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    spin_manifest_version: i64,
    pub(crate) application: Details,
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, Variable>,
    pub(crate) trigger: Triggers,
    #[serde(default)]
    pub(crate) component: BTreeMap<String, Component>,
}

/// `[application]`: names for humans.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Details {
    pub(crate) name: String,
    #[serde(default, rename = "version")]
    _version: String,
    #[serde(default, rename = "description")]
    _description: String,
    #[serde(default, rename = "authors")]
    _authors: Vec<String>,
    #[serde(default, rename = "targets")]
    _targets: Vec<Value>,
    #[serde(default, rename = "tool")]
    _tool: toml::Table,
    trigger: Option<Value>,
}

/// An entry of `[variables]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variable {
    #[serde(default)]
    pub(crate) required: bool,
    pub(crate) default: Option<String>,
    #[serde(default, rename = "secret")]
    _secret: bool,
    #[serde(default, rename = "description")]
    _description: Option<String>,
}

/// `[[trigger.<type>]]`; HTTP is the one type that this host has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Triggers {
    #[serde(default)]
    pub(crate) http: Vec<HttpTrigger>,
}

/// One `[[trigger.http]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpTrigger {
    #[serde(default, rename = "id")]
    _id: String,
    pub(crate) route: Route,
    pub(crate) component: String,
    executor: Option<Executor>,
}

/// A pattern, or the mark of a component that only other components may call.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`route` must be a string or `{ private = true }`")]
pub(crate) enum Route {
    Pattern(String),
    Private(Private),
}

/// `{ private = true }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Private {
    private: bool,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Executor {
    Http,
    Wagi,
}

/// `[component.<id>]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Component {
    pub(crate) source: Source,
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) allowed_outbound_hosts: Vec<String>,
    #[serde(default)]
    pub(crate) key_value_stores: Vec<String>,
    #[serde(default, rename = "description")]
    _description: String,
    #[serde(default, rename = "build")]
    _build: Option<Build>,
    #[serde(default, rename = "targets")]
    _targets: Vec<Value>,
    #[serde(default, rename = "tool")]
    _tool: toml::Table,
    // What Spin has and this host lacks: read so that the refusal can say so instead of calling it a typing error.
    files: Option<Value>,
    exclude_files: Option<Value>,
    allowed_http_hosts: Option<Value>,
    sqlite_databases: Option<Value>,
    ai_models: Option<Value>,
    dependencies: Option<Value>,
    dependencies_inherit_configuration: Option<Value>,
    profile: Option<Value>,
}

/// Where a component's code is.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Source {
    Path(String),
    Elsewhere(Value),
}

/// `[component.<id>.build]`, which only `spin build` looks at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    #[serde(rename = "command")]
    _command: Value,
    #[serde(rename = "workdir")]
    _workdir: Option<String>,
    #[serde(default, rename = "watch")]
    _watch: Vec<String>,
}

impl Manifest {
    /// Parses and checks a manifest. An error names the place and the rule.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let manifest: Self = toml::from_str(text)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        let version = self.spin_manifest_version;
        ensure!(version == 2, "spin_manifest_version = {version}: only version 2 is supported");
        ensure!(!self.application.name.is_empty(), "[application] name must not be empty");
        ensure!(
            self.application.trigger.is_none(),
            "[application.trigger] is not supported by this host: HTTP has no settings there"
        );
        for (name, variable) in &self.variables {
            variable.check(name).with_context(|| format!("[variables] {name}"))?;
        }
        for (id, component) in &self.component {
            component.check(id, &self.variables).with_context(|| format!("[component.{id}]"))?;
        }
        self.check_triggers()
    }

    fn check_triggers(&self) -> Result<()> {
        ensure!(!self.trigger.http.is_empty(), "there is no [[trigger.http]], so nothing can be called");
        let mut seen = BTreeMap::new();
        for (number, trigger) in self.trigger.http.iter().enumerate() {
            let place = || format!("[[trigger.http]] number {}", number + 1);
            trigger.check(&self.component).with_context(place)?;
            if let Route::Pattern(pattern) = &trigger.route
                && let Some(other) = seen.insert(pattern, &trigger.component)
            {
                bail!("{}: the route {pattern:?} already leads to the component {other:?}", place());
            }
        }
        Ok(())
    }
}

impl Variable {
    fn check(&self, name: &str) -> Result<()> {
        check_lower_snake(name)?;
        ensure!(!(self.required && self.default.is_some()), "`required` and `default` exclude each other");
        ensure!(self.required || self.default.is_some(), "needs `required = true` or a `default`");
        Ok(())
    }
}

impl HttpTrigger {
    fn check(&self, components: &BTreeMap<String, Component>) -> Result<()> {
        ensure!(
            components.contains_key(&self.component),
            "component = {:?}: there is no such component",
            self.component
        );
        ensure!(
            !matches!(self.executor, Some(Executor::Wagi)),
            "the executor `wagi` is not supported by this host"
        );
        match &self.route {
            Route::Pattern(pattern) => {
                ensure!(pattern.starts_with('/'), "route = {pattern:?}: must start with `/`")
            }
            Route::Private(Private { private }) => {
                ensure!(*private, "route must be a pattern or `{{ private = true }}`")
            }
        }
        Ok(())
    }
}

impl Component {
    fn check(&self, id: &str, variables: &BTreeMap<String, Variable>) -> Result<()> {
        check_kebab(id)?;
        for (key, value) in [
            ("files", &self.files),
            ("exclude_files", &self.exclude_files),
            ("allowed_http_hosts", &self.allowed_http_hosts),
            ("sqlite_databases", &self.sqlite_databases),
            ("ai_models", &self.ai_models),
            ("dependencies", &self.dependencies),
            ("dependencies_inherit_configuration", &self.dependencies_inherit_configuration),
            ("profile", &self.profile),
        ] {
            ensure!(value.is_none(), "`{key}` is not supported by this host");
        }
        if let Source::Elsewhere(value) = &self.source {
            bail!("source = {value}: only a path is supported by this host");
        }
        let known = |template: &Template| {
            template.variables().try_for_each(|name| {
                ensure!(variables.contains_key(name), "[variables] has no {name:?}");
                Ok(())
            })
        };
        for (name, text) in &self.variables {
            check_lower_snake(name)
                .and_then(|()| known(&Template::parse(text)?))
                .with_context(|| format!("variables: {name}"))?;
        }
        for host in &self.allowed_outbound_hosts {
            let template = Template::parse(host)?;
            known(&template).with_context(|| format!("allowed_outbound_hosts: {host:?}"))?;
            if template.is_literal() {
                AllowedHost::parse(host).context("allowed_outbound_hosts")?;
            }
        }
        for label in &self.key_value_stores {
            check_label(label).context("key_value_stores")?;
            ensure!(
                label == DEFAULT_STORE,
                "key_value_stores: {label:?} would need a runtime configuration; this host has only {DEFAULT_STORE:?}"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        spin_manifest_version = 2
        [application]
        name = "test"
        version = "0.1.0"
        [variables]
        host = { default = "127.0.0.1" }
        key = { required = true, secret = true }
        [[trigger.http]]
        route = "/api/..."
        component = "one"
        [[trigger.http]]
        route = { private = true }
        component = "one"
        executor = { type = "http" }
        [component.one]
        source = "one.wasm"
        allowed_outbound_hosts = ["postgres://{{ host }}:5432", "http://localhost:*"]
        key_value_stores = ["default"]
        variables = { address = "host={{ host }} password='{{ key }}'" }
        build = { command = "cargo build", watch = ["src/**/*.rs"] }
    "#;

    /// The error for the good manifest with one text replaced by another.
    fn error_with(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from:?} is not in the good manifest");
        format!("{:#}", Manifest::parse(&GOOD.replacen(from, to, 1)).unwrap_err())
    }

    #[test]
    fn a_good_manifest_is_accepted() {
        let manifest = Manifest::parse(GOOD).unwrap();
        assert_eq!(manifest.application.name, "test");
        assert_eq!(manifest.trigger.http.len(), 2);
        assert!(manifest.variables["key"].required);
    }

    #[test]
    fn a_bad_manifest_is_refused_with_the_place_and_the_rule() {
        for (from, to, expected) in [
            ("spin_manifest_version = 2", "spin_manifest_version = 1", &["version"][..]),
            (r#"name = "test""#, r#"nmae = "test""#, &["nmae"]),
            ("[variables]", "[varaibles]", &["varaibles"]),
            (r#"default = "127.0.0.1""#, "default = 5", &["default"]),
            (r#"default = "127.0.0.1""#, "secret = true", &["[variables] host", "default"]),
            ("required = true,", r#"required = true, default = "x","#, &["[variables] key", "exclude"]),
            ("required = true", "requierd = true", &["requierd"]),
            ("host = {", "Host = {", &["[variables] Host"]),
            ("[[trigger.http]]", "[[trigger.redis]]", &["redis"]),
            (r#"route = "/api/...""#, r#"route = "api""#, &["number 1", "start with `/`"]),
            (r#"route = "/api/...""#, "route = 5", &["route"]),
            ("private = true", "private = false", &["number 2", "private"]),
            (r#"component = "one""#, r#"component = "two""#, &["number 1", "two"]),
            (r#"type = "http""#, r#"type = "wagi""#, &["wagi"]),
            ("[component.one]", "[component.One_two]", &["One_two"]),
            (r#"source = "one.wasm""#, "source = { url = \"u\" }", &["[component.one]", "path"]),
            (r#"source = "one.wasm""#, r#"sauce = "one.wasm""#, &["sauce"]),
            ("key_value_stores", "files = [\"a\"]\nkey_value_stores", &["`files`", "not supported"]),
            ("key_value_stores", "sqlite_databases = [\"a\"]\nkey_value_stores", &["`sqlite_databases`"]),
            ("key_value_stores", "ai_models = []\nkey_value_stores", &["`ai_models`"]),
            (r#"["default"]"#, r#"["cache"]"#, &["cache", "default"]),
            ("{{ host }}:5432", "{{ hots }}:5432", &["allowed_outbound_hosts", "hots"]),
            ("host={{ host }}", "host={{ hots }}", &["variables: address", "hots"]),
            ("host={{ host }}", "host={{ host", &["variables: address", "{{"]),
            ("http://localhost:*", "localhost", &["allowed_outbound_hosts", "scheme"]),
            ("command =", "comand =", &["comand"]),
        ] {
            let error = error_with(from, to);
            for part in expected {
                assert!(error.contains(part), "{to:?}: {error:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn the_same_route_twice_is_refused() {
        let error = error_with("{ private = true }", "\"/api/...\"");
        assert!(error.contains("number 2") && error.contains("/api/..."), "{error}");
    }

    #[test]
    fn a_manifest_that_is_not_toml_names_the_line() {
        assert!(format!("{:#}", Manifest::parse("a = = b").unwrap_err()).contains("line 1"));
    }
}
