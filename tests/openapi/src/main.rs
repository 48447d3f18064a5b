//! Writes the generated files of `docs/`.

use anyhow::{Context, Result};

fn main() -> Result<()> {
    for (path, content) in openapi::files()? {
        let file = openapi::repository().join(path);
        std::fs::write(&file, content).with_context(|| format!("can't write {}", file.display()))?;
        println!("wrote {path}");
    }
    Ok(())
}
