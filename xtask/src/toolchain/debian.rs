//! Debian's Rust compiler with its std for `wasm32-wasip2`, in the user's cache, for machines that reach a Debian
//! mirror but not Rust's servers.
//!
//! Nothing is installed: packages of Debian's newer suites are unpacked beside the libraries that they need, libc
//! included, and started through the loader among them, so that they run on older releases too. The linkers are those
//! of the installed Rust, since the components are linked with the same programs everywhere.
//!
//! The cache is `$XDG_CACHE_HOME/llm-jobs/wasm-toolchain/VERSION` (`~/.cache/…` without that variable), shared by all
//! checkouts. A folder of that name is complete: it is put together elsewhere and renamed last. To get a newer
//! compiler, remove the folder.

use super::{TARGET, apt};
use crate::{lock, processes, progress, toolchain::apt::Suite};
use anyhow::{Context, Result, anyhow, bail};
use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The suites that have the std for WebAssembly, the newest first.
const SUITES: [&str; 2] = ["sid", "forky"];

const WASM_STD: &str = "libstd-rust-dev-wasm32";

/// The compiler that [`fetch`] put into `root`.
pub fn rustc(root: &Path) -> PathBuf {
    root.join("bin/rustc")
}

/// Clippy of the same version, to be used as cargo's workspace wrapper.
pub fn clippy_driver(root: &Path) -> PathBuf {
    root.join("bin/clippy-driver")
}

/// The newest toolchain in the cache, if there is one.
pub fn cached() -> Result<Option<PathBuf>> {
    let Ok(entries) = fs::read_dir(cache()?) else { return Ok(None) };
    let complete = entries.flatten().map(|entry| entry.path()).filter(|path| rustc(path).is_file());
    Ok(complete.filter(|path| !is_partial(path)).max_by_key(|path| version_numbers(path)))
}

/// Downloads and unpacks the toolchain, unless another process has done so meanwhile.
pub fn fetch() -> Result<PathBuf> {
    let cache = cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let _lock = lock::take(&cache.join("lock"), "another process that is getting the compiler")?;
    if let Some(root) = cached()? {
        return Ok(root);
    }
    remove_partial(&cache)?;

    let root = progress::step("Getting Debian's Rust compiler for WebAssembly (about 200 MB)", || {
        let linkers = installed_linkers()?;
        let mut failures = Vec::new();
        for mirror in apt::mirrors()? {
            for suite in SUITES {
                match fetch_from(&mirror, suite, &cache, &linkers) {
                    Ok(root) => return Ok(root),
                    Err(error) => failures.push(format!("{suite}: {error:#}")),
                }
                processes::check_interrupted()?;
            }
        }
        Err(anyhow!(failures.join("\n  ")))
    });
    let _ = remove_partial(&cache);
    processes::check_interrupted()?;
    root.with_context(|| {
        format!(
            "there is no compiler for {TARGET}. Either let rustup reach Rust's servers (`rustup target add {TARGET}`), \
             or let apt reach a Debian mirror with the suite sid or forky"
        )
    })
}

fn fetch_from(mirror: &str, suite: &str, cache: &Path, linkers: &[PathBuf]) -> Result<PathBuf> {
    let partial = cache.join(format!(".partial-{suite}"));
    progress::note(&format!("reading the package lists of {suite}"));
    let apt = Suite::update(mirror, suite, partial.join("apt"))?;

    let others = ["rustc", "libstd-rust-dev", "rust-clippy"];
    let names: Vec<String> = others.iter().chain(&[WASM_STD]).map(|name| (*name).to_owned()).collect();
    let mut packages = apt::matching_versions(&apt.madison(&names)?, WASM_STD, &others)?;
    let version = packages[0].split_once('=').expect("packages are name=version").1.to_owned();

    // The compiler itself is a library, and all that it needs at run time are dependencies of that one's package. What
    // the other packages depend on beyond it (a C compiler, binutils) is the system's own.
    let library = format!("libstd-rust-{}", release(&version)?);
    let found = apt.madison(std::slice::from_ref(&library))?;
    let library = apt::matching_versions(&found, &library, &[])?.remove(0);
    packages.extend(apt.with_dependencies(&library)?);

    progress::note(&format!("downloading rustc {version} from {suite}, {} packages", packages.len()));
    let files = apt.download(&packages)?;
    progress::note("unpacking");
    let unpacked = partial.join("root");
    fs::create_dir_all(&unpacked)?;
    for file in &files {
        apt::unpack(file, &unpacked)?;
    }
    // Documentation and locales: a fifth of it all.
    fs::remove_dir_all(unpacked.join("usr/share")).context("cannot remove usr/share")?;

    let tools = unpacked.join("usr/lib/rustlib").join(host()?).join("bin");
    fs::create_dir_all(&tools)?;
    for linker in linkers {
        processes::run("cp", Command::new("cp").arg("-R").arg(linker).arg(&tools))?;
    }
    let root = cache.join(&version);
    write_starter(&unpacked, &root, "rustc")?;
    write_starter(&unpacked, &root, "clippy-driver")?;

    fs::rename(&unpacked, &root).with_context(|| format!("cannot make {}", root.display()))?;
    if let Err(error) = check(&root) {
        fs::remove_dir_all(&root)?;
        return Err(error);
    }
    Ok(root)
}

/// Writes `bin/PROGRAM`, a script that starts `usr/bin/PROGRAM` with the libraries beside it. `unpacked` will be renamed
/// to `root`.
fn write_starter(unpacked: &Path, root: &Path, program: &str) -> Result<()> {
    let libraries = library_folder(&unpacked.join("usr/lib"))?;
    let loader = loader(&libraries)?;
    let libraries = root.join(libraries.strip_prefix(unpacked).expect("it is below"));
    let text = format!(
        "#!/bin/sh\nSYSROOT='{root}/usr' exec '{libraries}/{loader}' --library-path '{libraries}' '{root}/usr/bin/{program}' \"$@\"\n",
        root = root.display(),
        libraries = libraries.display(),
    );
    let folder = unpacked.join("bin");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(program), text)?;
    fs::set_permissions(folder.join(program), fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// `usr/lib/x86_64-linux-gnu` or what it is called on this architecture: the folder with the C library.
fn library_folder(lib: &Path) -> Result<PathBuf> {
    let folders = fs::read_dir(lib)?.flatten().map(|entry| entry.path());
    folders
        .into_iter()
        .find(|folder| folder.join("libc.so.6").exists())
        .ok_or_else(|| anyhow!("the packages hold no C library"))
}

/// The file name of the program loader in the folder of libraries.
fn loader(libraries: &Path) -> Result<String> {
    let names =
        fs::read_dir(libraries)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .into_iter()
        .find(|name| name.starts_with("ld-linux"))
        .ok_or_else(|| anyhow!("the packages hold no program loader"))
}

/// Makes sure that the compiler runs and has the target.
fn check(root: &Path) -> Result<()> {
    let print = ["--print", "target-libdir", "--target", TARGET];
    let folder = processes::output("Debian's rustc", Command::new(rustc(root)).args(print))?;
    if !Path::new(folder.trim()).is_dir() {
        bail!("{WASM_STD} holds no std for {TARGET}");
    }
    processes::output("Debian's clippy", Command::new(clippy_driver(root)).arg("--version"))?;
    Ok(())
}

/// The linkers of the installed Rust that the target needs.
fn installed_linkers() -> Result<Vec<PathBuf>> {
    let sysroot = processes::output("rustc", Command::new("rustc").args(["--print", "sysroot"]))?;
    let folder = Path::new(sysroot.trim()).join("lib/rustlib").join(host()?).join("bin");
    let linkers: Vec<PathBuf> =
        ["rust-lld", "gcc-ld", "wasm-component-ld"].iter().map(|name| folder.join(name)).collect();
    for linker in &linkers {
        if !linker.exists() {
            bail!("the installed Rust has no {}: install Rust with rustup", linker.display());
        }
    }
    Ok(linkers)
}

/// The installed compiler's host, such as `x86_64-unknown-linux-gnu`.
fn host() -> Result<String> {
    let version = processes::output("rustc", Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| anyhow!("rustc -vV names no host"))
}

/// `1.97` of `1.97.1+dfsg1-1`.
fn release(version: &str) -> Result<String> {
    let mut numbers = version.split('.');
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => Ok(format!("{major}.{minor}")),
        _ => bail!("{version} is no version of Rust"),
    }
}

fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("llm-jobs/wasm-toolchain"))
}

fn is_partial(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

fn remove_partial(cache: &Path) -> Result<()> {
    for entry in fs::read_dir(cache)? {
        let path = entry?.path();
        if is_partial(&path) {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The numbers in a version, to compare it by.
fn version_numbers(path: &Path) -> Vec<u64> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_their_numbers() {
        let older = version_numbers(Path::new("/cache/1.97.1+dfsg1-1"));
        assert!(version_numbers(Path::new("/cache/1.100.0+dfsg1-1")) > older);
        assert!(version_numbers(Path::new("/cache/1.97.1+dfsg1-2")) > older);
    }

    #[test]
    fn the_release_is_the_first_two_numbers() {
        assert_eq!(release("1.97.1+dfsg1-1").expect("a version"), "1.97");
        assert!(release("sid").is_err());
    }
}
