//! What `spin.toml` says several times, since its templates can't say it once.

use openapi::repository;
use std::{collections::BTreeMap, fs};
use toml::{Table, Value};

fn components() -> BTreeMap<String, Table> {
    let manifest = fs::read_to_string(repository().join("spin.toml")).expect("spin.toml");
    let manifest: Table = manifest.parse().expect("TOML");
    let components = manifest["component"].as_table().expect("components").clone();
    components
        .into_iter()
        .map(|(name, component)| (name, component.as_table().expect("a component").clone()))
        .collect()
}

/// What each component that has the variable says of it.
fn variable(name: &str) -> BTreeMap<String, Value> {
    let value = |component: &Table| component.get("variables")?.get(name).cloned();
    components().iter().filter_map(|(id, component)| Some((id.clone(), value(component)?))).collect()
}

#[test]
fn every_component_connects_to_the_database_in_the_same_way() {
    let addresses = variable("database_address");
    assert_eq!(addresses.len(), components().len() - 1, "all but the documentation");
    let (_, first) = addresses.first_key_value().expect("an address");
    for (component, address) in &addresses {
        assert_eq!(address, first, "{component}");
    }
}

#[test]
fn a_variable_of_a_component_is_the_applications_of_the_same_name() {
    for (component, table) in components() {
        let variables = table.get("variables").and_then(Value::as_table).cloned().unwrap_or_default();
        for (name, value) in variables.iter().filter(|(name, _)| *name != "database_address") {
            assert_eq!(value.as_str(), Some(format!("{{{{ {name} }}}}").as_str()), "{component}");
        }
    }
}
