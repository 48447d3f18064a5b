//! The WebAssembly components that spin.toml names: building and linting them.

use crate::{
    processes, progress, project,
    toolchain::{TARGET, Toolchain},
};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::{collections::BTreeMap, fs, path::PathBuf};

/// The part of spin.toml that says what to build.
#[derive(Deserialize)]
struct Manifest {
    component: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Component {
    source: PathBuf,
    build: Option<Build>,
}

#[derive(Deserialize)]
struct Build {
    command: String,
}

/// Builds every component with the profile `release` to where spin.toml looks for it.
pub fn build() -> Result<()> {
    let toolchain = Toolchain::obtain()?;
    let components = read_manifest()?;
    progress::step("Building the components", || {
        let mut cargo = toolchain.cargo("build");
        cargo.args(["--release", "--target", TARGET]).args(packages(&components)?);
        processes::run("cargo build", &mut cargo)?;
        for (id, component) in &components {
            let wasm = project::root().join(&component.source);
            if !wasm.is_file() {
                bail!("the build made no {} for the component {id} in spin.toml", wasm.display());
            }
        }
        Ok(())
    })
}

/// Lints every component, and what they share, as compiled to WebAssembly. Any warning is an error.
pub fn lint() -> Result<()> {
    let toolchain = Toolchain::obtain()?;
    let components = read_manifest()?;
    progress::step("Linting the components", || {
        let mut clippy = toolchain.clippy();
        clippy.args(["--target", TARGET]).args(packages(&components)?);
        toolchain.deny_warnings(&mut clippy);
        processes::run("clippy for the components", &mut clippy)
    })
}

fn read_manifest() -> Result<BTreeMap<String, Component>> {
    let path = project::root().join("spin.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: Manifest = toml::from_str(&text).context("cannot understand spin.toml")?;
    Ok(manifest.component)
}

/// Cargo's arguments that select the packages of all components.
fn packages(components: &BTreeMap<String, Component>) -> Result<Vec<String>> {
    let mut arguments = Vec::new();
    for (id, component) in components {
        let Some(build) = &component.build else { continue };
        let package = package(&build.command).with_context(|| {
            format!("spin.toml: the build command of the component {id} must hold `--package NAME`")
        })?;
        arguments.extend(["--package".to_owned(), package.to_owned()]);
    }
    Ok(arguments)
}

fn package(build_command: &str) -> Option<&str> {
    build_command.split_whitespace().skip_while(|word| *word != "--package").nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_read_from_the_build_command() {
        let command = "cargo build --release --target wasm32-wasip2 --package llm-call";
        assert_eq!(package(command), Some("llm-call"));
        assert_eq!(package("cargo build --package"), None);
        assert_eq!(package("make"), None);
    }

    #[test]
    fn every_component_of_the_manifest_names_its_package() {
        let components = read_manifest().expect("spin.toml can be read");
        let built = components.values().filter(|component| component.build.is_some()).count();
        assert_eq!(packages(&components).expect("each has one").len(), 2 * built);
        assert!(built > 0);
    }
}
