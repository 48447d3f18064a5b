//! The WebAssembly components of the workspace, which are its packages that build a `cdylib`: the application's, which
//! spin.toml names, and test-only ones, which tests add to it.

use crate::{
    processes, progress, project,
    toolchain::{TARGET, ensure_target},
};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The components to build.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those that spin.toml names.
    Application,
    /// All of the workspace.
    WithTestOnly,
}

/// The part of spin.toml that says where components are looked for.
#[derive(Deserialize)]
struct Manifest {
    component: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Component {
    source: PathBuf,
}

/// The part of what `cargo metadata` prints that says what a package builds.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    crate_types: Vec<String>,
}

/// Builds components with the profile `release` to where spin.toml looks for them.
pub fn build(scope: Scope) -> Result<()> {
    ensure_target()?;
    progress::step("Building the components", || {
        let mut cargo = project::cargo("build");
        cargo.args(["--release", "--target", TARGET]).args(packages(scope)?);
        processes::run("cargo build", &mut cargo)?;
        for (id, component) in read_manifest()? {
            if !project::root().join(&component.source).is_file() {
                bail!("no package builds {} for the component {id} in spin.toml", component.source.display());
            }
        }
        Ok(())
    })
}

/// Lints all components, and what they share, as compiled to WebAssembly. Any warning is an error.
pub fn lint() -> Result<()> {
    ensure_target()?;
    progress::step("Linting the components", || {
        let mut clippy = project::cargo("clippy");
        clippy.args(["--target", TARGET]).args(packages(Scope::WithTestOnly)?).args(["--", "-D", "warnings"]);
        processes::run("clippy for the components", &mut clippy)
    })
}

fn read_manifest() -> Result<BTreeMap<String, Component>> {
    let path = project::root().join("spin.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: Manifest = toml::from_str(&text).context("cannot understand spin.toml")?;
    Ok(manifest.component)
}

/// Cargo's arguments that select the packages of components.
fn packages(scope: Scope) -> Result<Vec<String>> {
    let mut metadata = project::cargo("metadata");
    metadata.args(["--no-deps", "--format-version", "1"]);
    let metadata: Metadata = serde_json::from_str(&processes::output("cargo metadata", &mut metadata)?)?;
    let manifest = read_manifest()?;
    let in_application = |name: &str| {
        let file = format!("{}.wasm", name.replace('-', "_"));
        manifest.values().any(|component| component.source.file_name() == Some(Path::new(&file).as_os_str()))
    };

    let mut arguments = Vec::new();
    for package in metadata.packages {
        let mut targets = package.targets.iter();
        let component = targets.find(|target| target.crate_types.iter().any(|kind| kind == "cdylib"));
        if component.is_some_and(|target| scope == Scope::WithTestOnly || in_application(&target.name)) {
            arguments.extend(["--package".to_owned(), package.name]);
        }
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_of_the_application_is_a_package_and_test_only_ones_are_not_among_them() {
        let components = read_manifest().expect("spin.toml can be read");
        let application = packages(Scope::Application).expect("cargo knows the packages");
        assert_eq!(application.len(), 2 * components.len());
        let all = packages(Scope::WithTestOnly).expect("cargo knows the packages");
        assert!(application.iter().all(|argument| all.contains(argument)));
        assert!(!application.contains(&"trap".to_owned()) && all.contains(&"trap".to_owned()));
    }
}
