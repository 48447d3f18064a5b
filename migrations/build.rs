//! Lists the SQL files beside this file in a constant, so that a new file is picked up without naming it anywhere.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::var("CARGO_MANIFEST_DIR")?;
    println!("cargo::rerun-if-changed=.");

    let mut names = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let name = entry?.file_name().into_string().map_err(|name| format!("{name:?} is not UTF-8"))?;
        if name.ends_with(".sql") {
            names.push(name);
        }
    }
    names.sort();

    let mut list = String::from("&[\n");
    let mut previous = 0;
    for name in names {
        let number =
            number(&name).ok_or_else(|| format!("migrations/{name}: the name must be NNNN_name.sql"))?;
        if number != previous + 1 {
            return Err(format!("migrations/{name}: the number must be {:04}", previous + 1).into());
        }
        previous = number;
        let path = Path::new(&folder).join(&name);
        writeln!(list, "    Migration {{ number: {number}, file: {name:?}, sql: include_str!({path:?}) }},")?;
    }
    list.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("migrations.rs"), list)?;
    Ok(())
}

/// The number of `NNNN_name.sql`, where the name is of lower-case letters, digits and `_`.
fn number(file: &str) -> Option<i32> {
    let (number, name) = file.strip_suffix(".sql")?.split_once('_')?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let well_formed = number.len() == 4 && !name.is_empty() && name.chars().all(plain);
    if well_formed { number.parse().ok() } else { None }
}
