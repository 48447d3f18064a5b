//! PostgreSQL's server programs: where they are, how they get there, and as whom they run.

use crate::{processes, progress};
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::geteuid;
use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Folders that hold one folder for each version, with the part of the path below that.
const PLACES: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", "bin"),
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "bin"),
    ("/usr", "bin"),
];

/// The user that Debian's package makes for its servers.
const USER: &str = "postgres";

/// Debian's package makes a server of its own and starts it, unless a file here says no.
const NO_MAIN_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/llm-jobs.conf";

/// The server programs of one version.
pub struct Programs {
    folder: PathBuf,
    major: u32,
}

impl Programs {
    /// The programs for a data folder of the version `major`, or the newest ones for a new folder. Installs them when
    /// there are none and this is Debian and root.
    pub fn find_or_install(major: Option<u32>) -> Result<Programs> {
        if installed().is_empty() {
            install()?;
        }
        let versions = installed();
        let found = versions.iter().map(|programs| programs.major.to_string()).collect::<Vec<_>>().join(", ");
        match major {
            None => versions.into_iter().next().context("there are still no PostgreSQL server programs"),
            Some(major) => versions.into_iter().find(|programs| programs.major == major).with_context(|| {
                format!("the database was made by PostgreSQL {major}, but only version {found} is installed")
            }),
        }
    }

    /// One of the programs, to be run as `owner`.
    pub fn command(&self, program: &str, owner: Owner) -> Command {
        let mut command = Command::new(self.folder.join(program));
        // The folder of the caller may be closed to the owner. The locale is what keeps the server on macOS from
        // starting threads too early, and messages readable for this program.
        command.current_dir("/").env("LC_ALL", "C");
        if let Owner::Other { user, group } = owner {
            command.uid(user).gid(group);
        }
        command
    }
}

/// As whom the programs run, who also owns the data.
#[derive(Clone, Copy)]
pub enum Owner {
    /// The user who runs this.
    Caller,
    /// The user `postgres`, when root runs this: the programs refuse to work for root.
    Other {
        /// The user's number.
        user: u32,
        /// The number of the user's group.
        group: u32,
    },
}

impl Owner {
    /// The owner for whoever runs this. Call it when the programs are installed.
    pub fn find() -> Result<Owner> {
        if !geteuid().is_root() {
            return Ok(Owner::Caller);
        }
        let number = |flag| -> Result<u32> {
            let id = processes::output("id", Command::new("id").args([flag, USER])).with_context(|| {
                format!("PostgreSQL refuses to run as root: make a user named {USER} for it")
            })?;
            Ok(id.trim().parse()?)
        };
        Ok(Owner::Other { user: number("-u")?, group: number("-g")? })
    }

    /// Gives a file or folder to the owner.
    pub fn give(self, path: &Path) -> Result<()> {
        match self {
            Owner::Caller => Ok(()),
            Owner::Other { user, group } => std::os::unix::fs::chown(path, Some(user), Some(group))
                .with_context(|| format!("cannot give {} to {USER}", path.display())),
        }
    }
}

/// All versions on this machine, the newest first.
fn installed() -> Vec<Programs> {
    let mut folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        // A link in a folder of the path leads to where all programs of the version are.
        .filter_map(|folder| fs::canonicalize(folder.join("initdb")).ok()?.parent().map(Path::to_owned))
        .collect();
    for (place, below) in PLACES {
        folders.extend(
            fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path().join(below)),
        );
    }
    let mut versions: Vec<Programs> = folders
        .into_iter()
        .filter(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
        .filter_map(|folder| Some(Programs { major: version_of(&folder)?, folder }))
        .collect();
    // Stable: among equal versions, what the path names stays first.
    versions.sort_by_key(|programs| std::cmp::Reverse(programs.major));
    versions
}

fn version_of(folder: &Path) -> Option<u32> {
    let printed =
        processes::output("postgres", Command::new(folder.join("postgres")).arg("--version")).ok()?;
    major(&printed)
}

/// `15` of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major(printed: &str) -> Option<u32> {
    let version = printed.split_once("(PostgreSQL) ")?.1;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn install() -> Result<()> {
    let debian = Path::new("/usr/bin/apt-get").exists();
    if !debian || !geteuid().is_root() {
        bail!(
            "there are no PostgreSQL server programs (initdb, postgres) here. Install them (Debian and Ubuntu: \
             `sudo apt-get install postgresql`, macOS: `brew install postgresql`)"
        );
    }
    progress::step("Installing Debian's package postgresql", || {
        let rule = Path::new(NO_MAIN_CLUSTER);
        let folder = rule.parent().ok_or_else(|| anyhow!("{NO_MAIN_CLUSTER} has no parent"))?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(rule, "create_main_cluster = false\n")
            .with_context(|| format!("cannot write {NO_MAIN_CLUSTER}"))?;
        let result = apt(&["update"])
            .and_then(|()| apt(&["install", "--yes", "--no-install-recommends", "postgresql"]));
        fs::remove_file(rule).with_context(|| format!("cannot remove {NO_MAIN_CLUSTER}"))?;
        result
    })
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.arg("-q").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(std::io::stderr());
    processes::run("apt-get", &mut apt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_the_server_prints() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major("something else"), None);
    }
}
