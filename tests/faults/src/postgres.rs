//! A PostgreSQL of a test's own.

use crate::keeper::Keeper;
use anyhow::{Context, Result, bail};
use private_postgres::{Home, Server};
use std::{
    fs::{self, File},
    io::Write,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use tokio_postgres::Config;

/// A server that may be killed, and starts again on the same port with what was committed. Dropping it ends it and
/// removes its data.
pub struct Postgres {
    // Dropped before the folder.
    keeper: Keeper<Kept>,
    folder: TempDir,
    url: String,
}

struct Kept {
    home: Home,
    server: Option<Server>,
    options: Vec<&'static str>,
}

/// Where a server's data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Where temporary files are.
    Usual,
    /// On a disk of its own of so many bytes, which [`Postgres::fill_disk`] can fill. Only root can make one, and only
    /// on Linux.
    Small(u64),
}

impl Postgres {
    /// Makes one and starts it, with server settings (`name=value`).
    pub async fn start(options: &[&'static str]) -> Result<Self> {
        Self::start_on(Disk::Usual, options).await
    }

    /// [`start`](Self::start) on that disk. The error of a disk that can't be made here says why.
    pub async fn start_on(disk: Disk, options: &[&'static str]) -> Result<Self> {
        // The server's user must get through; the data below it is the server's alone.
        let open = fs::Permissions::from_mode(0o711);
        let folder = tempfile::Builder::new().prefix("llm-jobs-postgres-").permissions(open).tempdir()?;
        let path = folder.path().to_owned();
        // A crash of the server is not one of the system, so what it has written is there even if it was not synced.
        let mut options = options.to_vec();
        options.push("fsync=off");
        let keeper = Keeper::start(move || {
            if let Disk::Small(bytes) = disk {
                mount(&path, bytes).context("a disk of its own")?;
            }
            let home = Home::new(path)?;
            let server = Some(home.start(&options)?);
            Ok(Kept { home, server, options })
        })
        .await?;
        let url = keeper.with(|kept| kept.server.as_ref().map(Server::superuser_url)).await;
        Ok(Self { keeper, folder, url: url.context("it has just started")? })
    }

    /// The URL of its database `postgres`, as superuser.
    pub fn superuser_url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        let config: Config = self.url.parse().expect("a URL");
        SocketAddr::from(([127, 0, 0, 1], config.get_ports()[0]))
    }

    /// Ends all its processes at once, in the middle of whatever they do.
    pub async fn kill(&self) {
        self.keeper.with(|kept| kept.server.take().map(Server::kill)).await;
    }

    /// Shuts it down in order, which cuts its connections.
    pub async fn stop(&self) {
        self.keeper.with(|kept| drop(kept.server.take())).await;
    }

    /// Starts it again once it has ended, in whichever way; done when it accepts connections.
    pub async fn restart(&self) -> Result<()> {
        let url = self.keeper.with(|kept| kept.start_again()).await?;
        if url != self.url {
            bail!("somebody took the port of the server while it was down");
        }
        Ok(())
    }

    /// Lets all its processes stand still; connections stay open, and some new ones are still accepted by the system.
    pub async fn freeze(&self) {
        self.keeper.with(|kept| kept.server.as_ref().map(Server::freeze)).await;
    }

    /// Resumes the frozen processes.
    pub async fn thaw(&self) {
        self.keeper.with(|kept| kept.server.as_ref().map(Server::thaw)).await;
    }

    /// Leaves no space on its [`Disk::Small`].
    pub async fn fill_disk(&self) -> Result<()> {
        let ballast = self.ballast();
        self.keeper
            .with(move |_| {
                let mut file = File::create(&ballast)?;
                let zeros = [0; 8192];
                loop {
                    match file.write_all(&zeros) {
                        Ok(()) => {}
                        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                        Err(error) => return Err(error.into()),
                    }
                }
            })
            .await
    }

    /// Frees the space that [`Postgres::fill_disk`] has filled.
    pub async fn free_disk(&self) -> Result<()> {
        let ballast = self.ballast();
        self.keeper.with(move |_| fs::remove_file(&ballast)).await.context("it was not filled")
    }

    /// Whether it still runs; a server that finds no space for its log ends itself.
    pub async fn runs(&self) -> bool {
        self.keeper
            .with(|kept| match &mut kept.server {
                Some(server) => matches!(server.process().exit_status(), Ok(None)),
                None => false,
            })
            .await
    }

    /// What it printed since its last start.
    pub async fn log(&self) -> String {
        self.keeper.with(|kept| fs::read_to_string(kept.home.log()).unwrap_or_default()).await
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }
}

impl Kept {
    fn start_again(&mut self) -> Result<String> {
        // One that ended by itself is still here.
        self.server = None;
        let server = self.server.insert(self.home.start(&self.options)?);
        Ok(server.superuser_url())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Nothing of it is to be kept, so there is nothing to wait for. A frozen one would not shut down.
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }
}

/// Puts a disk of its own on a folder, which only this thread and what it starts can see, and which is gone with them.
#[cfg(target_os = "linux")]
fn mount(folder: &Path, bytes: u64) -> Result<()> {
    use rustix::{
        mount::{MountFlags, MountPropagationFlags, mount, mount_change},
        thread::{UnshareFlags, unshare_unsafe},
    };
    // SAFETY: it is about unsharing file descriptors, which this does not do.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("only root may make one")?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    let options = std::ffi::CString::new(format!("size={bytes},mode=0711"))?;
    mount("none", folder, "tmpfs", MountFlags::empty(), options.as_c_str())?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn mount(_: &Path, _: u64) -> Result<()> {
    bail!("only on Linux")
}
