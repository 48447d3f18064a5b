//! Compresses the files that the component serves into `OUT_DIR`: its own pages, the OpenAPI document, and the scripts
//! and style sheets of Swagger UI and Redoc, which are cut out of the pages that the crate `aide` generates.
//!
//! Swagger UI (Apache-2.0, by SmartBear Software) and Redoc (MIT, by Rebilly and Redocly) keep their copyright notices.

use aide::{redoc::Redoc, swagger::Swagger};
use anyhow::{Context, Result, ensure};
use std::{env, fs, num::NonZeroU64, path::Path};
use zopfli::{Format, Options};

/// This application's own files, relative to this package.
const OWN: [&str; 5] = [
    "../../docs/openapi.json",
    "pages/redoc.css",
    "pages/redoc.html",
    "pages/swagger.html",
    "pages/swagger.js",
];

/// The picture that Redoc shows in its menu. It would be loaded from another site, so it is replaced by an empty one.
const REDOC_LOGO: &str = "https://cdn.redoc.ly/redoc/logo-mini.svg";

/// More iterations hardly make the files smaller.
const ITERATIONS: NonZeroU64 = NonZeroU64::new(5).unwrap();

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    for path in OWN {
        println!("cargo::rerun-if-changed={path}");
        let content = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        compress(path, &content)?;
    }

    let swagger = Swagger::new("/openapi.json").html();
    compress("swagger-ui.css", between(&swagger, "<style>", "</style>")?)?;
    compress("swagger-ui-bundle.js", between(&swagger, "<script>", "</script>\n<!--")?)?;

    let redoc = Redoc::new("/openapi.json").html();
    let script = between(&redoc, "<script>", "Redoc.init(\"/openapi.json\"")?;
    ensure!(script.matches(REDOC_LOGO).count() == 1, "Redoc loads its logo from elsewhere than expected");
    compress("redoc.standalone.js", &script.replace(REDOC_LOGO, "data:,"))
}

/// The text between two marks; the second is the last of its kind in the page.
fn between<'a>(page: &'a str, before: &str, after: &str) -> Result<&'a str> {
    let marked = || format!("aide's page is not made as expected: nothing between {before} and {after}");
    let (_, rest) = page.split_once(before).with_context(marked)?;
    let (content, _) = rest.rsplit_once(after).with_context(marked)?;
    Ok(content.trim())
}

/// Writes the content to `OUT_DIR` as a file of this name with `.gz`. The same content always gives the same bytes.
fn compress(path: &str, content: &str) -> Result<()> {
    let name = Path::new(path).file_name().context("a path without a name")?.to_string_lossy();
    let target = Path::new(&env::var("OUT_DIR")?).join(format!("{name}.gz"));
    let options = Options { iteration_count: ITERATIONS, ..Options::default() };
    let mut compressed = Vec::new();
    zopfli::compress(options, Format::Gzip, content.as_bytes(), &mut compressed)?;
    fs::write(&target, compressed).with_context(|| format!("cannot write {}", target.display()))
}
