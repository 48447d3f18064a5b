//! Lists the SQL files of `tables/` and `functions/` in constants, so that a new file is picked up without naming it
//! anywhere.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::var("CARGO_MANIFEST_DIR")?;
    let folder = Path::new(&folder);
    let tables = files(&folder.join("tables"))?;
    for (number, name) in (1..).zip(&tables) {
        if !name.starts_with(&format!("{number:04}_")) {
            return Err(format!("migrations/tables/{name}: its name must begin with {number:04}_").into());
        }
    }
    let mut code = String::new();
    for (constant, kind, names) in
        [("TABLES", "tables", tables), ("FUNCTIONS", "functions", files(&folder.join("functions"))?)]
    {
        writeln!(code, "const {constant}: &[(&str, &str)] = &[")?;
        for name in names {
            let path = folder.join(kind).join(&name);
            writeln!(code, "    ({:?}, include_str!({path:?})),", format!("{kind}/{name}"))?;
        }
        writeln!(code, "];")?;
    }
    fs::write(Path::new(&env::var("OUT_DIR")?).join("files.rs"), code)?;
    Ok(())
}

/// The names of a folder's SQL files, in alphabetical order.
fn files(folder: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut names = vec![];
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string().map_err(|name| format!("{name:?} is not UTF-8"))?;
        let stem = name.strip_suffix(".sql").unwrap_or_default();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if stem.is_empty() || !stem.chars().all(plain) {
            return Err(format!(
                "{}/{name}: its name must be of a-z, 0-9 and _, and end in .sql",
                folder.display()
            )
            .into());
        }
        names.push(name);
    }
    names.sort();
    Ok(names)
}
