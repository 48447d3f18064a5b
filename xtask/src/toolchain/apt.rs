//! Reading another suite of the machine's own Debian mirror with apt, without root and without touching the system:
//! lists, cache and sources are in a folder of our own.

use crate::processes;
use anyhow::{Context, Result, bail};
use std::{fs, path::PathBuf, process::Command};

/// Keys of the Debian archive, as the package `debian-archive-keyring` installs them.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// The Debian mirrors that this machine's apt is set up for.
///
/// apt itself is asked what it would download, so every format of its configuration is understood.
pub fn mirrors() -> Result<Vec<String>> {
    let mut apt = Command::new("apt-get");
    apt.args(["-o", "Debug::NoLocking=1", "update", "--print-uris"]);
    let mirrors = mirrors_in(&processes::output("apt-get", &mut apt)?);
    if mirrors.is_empty() {
        bail!("apt is set up for no Debian mirror");
    }
    Ok(mirrors)
}

/// The addresses before `/dists/` in lines like `'ADDRESS/dists/trixie/InRelease' file size`, where the suite is a
/// release of Debian itself: not its updates or security fixes, and no third party's archive.
fn mirrors_in(print_uris: &str) -> Vec<String> {
    let mut mirrors = Vec::new();
    for line in print_uris.lines() {
        let Some((uri, _)) = line.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) else { continue };
        let Some((mirror, rest)) = uri.split_once("/dists/") else { continue };
        let release = rest.strip_suffix("/InRelease").is_some_and(|suite| !suite.contains(['-', '/']));
        if release && mirror.ends_with("debian") && !mirrors.iter().any(|known| known == mirror) {
            mirrors.push(mirror.to_owned());
        }
    }
    mirrors
}

/// A suite of a mirror, read through a folder that can be thrown away.
pub struct Suite {
    folder: PathBuf,
}

impl Suite {
    /// Downloads the package lists of `suite` (its section `main`, this machine's architecture), about 11 MB.
    pub fn update(mirror: &str, suite: &str, folder: PathBuf) -> Result<Suite> {
        let this = Suite { folder };
        for name in ["sources", "lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(this.folder.join(name))?;
        }
        let architecture = processes::output("dpkg", Command::new("dpkg").arg("--print-architecture"))?;
        let mut source = format!(
            "Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\nArchitectures: {}\nTargets: Packages\n",
            architecture.trim()
        );
        if let Some(keyring) = KEYRINGS.iter().find(|keyring| fs::exists(keyring).unwrap_or(false)) {
            source.push_str(&format!("Signed-By: {keyring}\n"));
        }
        fs::write(this.folder.join("sources/debian.sources"), source)?;
        let mut update = this.apt("apt-get");
        update.args(["-q", "update", "--error-on=any"]);
        processes::output("apt-get update", &mut update)?;
        Ok(this)
    }

    /// What `apt-cache madison` says about the packages, one `name | version | origin` a line, newest first.
    pub fn madison(&self, packages: &[String]) -> Result<String> {
        processes::output("apt-cache", self.apt("apt-cache").arg("madison").args(packages))
    }

    /// A package with everything that it depends on, as `name=version`.
    pub fn with_dependencies(&self, package: &str) -> Result<Vec<String>> {
        let mut simulation = self.apt("apt-get");
        simulation.args(["-q", "--simulate", "--no-install-recommends", "install", package]);
        Ok(installed_by(&processes::output("apt-get", &mut simulation)?))
    }

    /// Downloads packages (`name=version`) and gives back their files. apt checks their checksums.
    pub fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("packages");
        let mut download = self.apt("apt-get");
        download.args(["-q", "download"]).args(packages).current_dir(&folder);
        // apt reports on its standard output, which is kept for results here.
        download.stdout(std::io::stderr());
        processes::run("apt-get download", &mut download)?;
        let files: Vec<PathBuf> =
            fs::read_dir(&folder)?.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
        if files.len() != packages.len() {
            bail!("apt-get downloaded {} of {} packages", files.len(), packages.len());
        }
        Ok(files)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        for (option, folder) in
            [("Dir::Etc::sourceparts", "sources"), ("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")]
        {
            apt.arg("-o").arg(format!("{option}={}", self.folder.join(folder).display()));
        }
        for option in [
            "Dir::Etc::sourcelist=/dev/null",
            "Dir::Etc::preferences=/dev/null",
            "Dir::Etc::preferencesparts=/dev/null",
            // Dependencies are worked out as if nothing were installed.
            "Dir::State::status=/dev/null",
            "Acquire::http::Timeout=30",
            "Acquire::https::Timeout=30",
            "Acquire::Retries=2",
            // apt's own user can't write to the cache of the user who runs this.
            "APT::Sandbox::User=root",
        ] {
            apt.args(["-o", option]);
        }
        apt.env("LC_ALL", "C");
        apt
    }
}

/// The packages in lines like `Inst libc6 (2.43-7 Debian:unstable [amd64])`, as `name=version`.
fn installed_by(simulation: &str) -> Vec<String> {
    let package = |line: &str| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
        let version = rest.split(' ').next()?;
        Some(format!("{name}={version}"))
    };
    simulation.lines().filter_map(package).collect()
}

/// The packages of one Rust release that fit together, as `name=version`, of the newest release that has them all.
///
/// `madison` is what [`Suite::madison`] gives back for `leader` and `others`; the newest version of `leader` that the
/// others have too wins. A package may have been rebuilt without a change of its source, which its version tells by a
/// suffix `+b1`: such versions are equal here.
pub fn matching_versions(madison: &str, leader: &str, others: &[&str]) -> Result<Vec<String>> {
    let available: Vec<(&str, &str)> = madison
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('|').map(str::trim);
            Some((fields.next()?, fields.next()?))
        })
        .collect();
    let mut missing = format!("there is no package {leader}");
    'leaders: for (_, version) in available.iter().filter(|(name, _)| *name == leader) {
        let mut chosen = vec![format!("{leader}={version}")];
        for other in others {
            let same = |(name, candidate): &&(&str, &str)| {
                name == other && without_rebuild(candidate) == without_rebuild(version)
            };
            let Some((_, found)) = available.iter().find(same) else {
                missing = format!("there is {leader} {version}, but no {other} of that version");
                continue 'leaders;
            };
            chosen.push(format!("{other}={found}"));
        }
        return Ok(chosen);
    }
    bail!(missing)
}

fn without_rebuild(version: &str) -> &str {
    match version.rsplit_once("+b") {
        Some((base, count)) if !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()) => base,
        _ => version,
    }
}

/// Unpacks a package's files into a folder.
pub fn unpack(package: &std::path::Path, folder: &std::path::Path) -> Result<()> {
    let mut dpkg = Command::new("dpkg-deb");
    processes::run("dpkg-deb", dpkg.arg("--extract").arg(package).arg(folder))
        .with_context(|| format!("cannot unpack {}", package.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_those_of_debian_releases_and_each_is_named_once() {
        let uris = "\
'http://mirror.example/debian/dists/bookworm/InRelease' mirror.example_debian_dists_bookworm_InRelease 0 
'http://mirror.example/debian/dists/bookworm-updates/InRelease' x 0 
'http://mirror.example/debian-security/dists/bookworm-security/InRelease' x 0 
'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' x 0 
'https://packages.example/apt/dists/stable/InRelease' x 0 
'https://other.example/mirrors/debian/dists/sid/InRelease' x 0 
Reading package lists...";
        assert_eq!(
            mirrors_in(uris),
            ["http://mirror.example/debian", "https://other.example/mirrors/debian"]
        );
    }

    #[test]
    fn the_simulation_lists_packages_with_versions() {
        let simulation = "Building dependency tree...\nInst gcc-16-base (16.2.0-4 Debian:unstable [amd64])\n\
                          Inst zlib1g (1:1.3.dfsg-4 Debian:unstable [amd64]) []\nConf zlib1g (1:1.3.dfsg-4 Debian [amd64])";
        assert_eq!(installed_by(simulation), ["gcc-16-base=16.2.0-4", "zlib1g=1:1.3.dfsg-4"]);
    }

    #[test]
    fn the_newest_complete_release_is_chosen_and_rebuilds_count_as_equal() {
        let madison = "\
std-wasm | 1.98.0+dfsg1-1 | http://mirror sid/main amd64 Packages
std-wasm | 1.97.1+dfsg1-1 | http://mirror sid/main amd64 Packages
   rustc | 1.97.1+dfsg1-1+b2 | http://mirror sid/main amd64 Packages
  clippy | 1.98.0+dfsg1-1 | http://mirror sid/main amd64 Packages
  clippy | 1.97.1+dfsg1-1 | http://mirror sid/main amd64 Packages";
        assert_eq!(
            matching_versions(madison, "std-wasm", &["rustc", "clippy"]).expect("1.97.1 is complete"),
            ["std-wasm=1.97.1+dfsg1-1", "rustc=1.97.1+dfsg1-1+b2", "clippy=1.97.1+dfsg1-1"]
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = matching_versions("", "std-wasm", &["rustc"]).expect_err("there is nothing").to_string();
        assert_eq!(none, "there is no package std-wasm");
        let madison = "std-wasm | 1.98.0-1 | m\nrustc | 1.97.0-1 | m";
        let skewed =
            matching_versions(madison, "std-wasm", &["rustc"]).expect_err("versions differ").to_string();
        assert_eq!(skewed, "there is std-wasm 1.98.0-1, but no rustc of that version");
    }
}
