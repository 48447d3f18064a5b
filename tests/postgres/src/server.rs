//! One server: its data folder, its settings, its life.

use crate::{
    ports,
    processes::{self, Process},
    programs::{Owner, Programs},
    progress, secret,
};
use anyhow::{Context, Result, bail};
use rustix::process::{Signal, geteuid};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio_postgres::{Config, NoTls};

/// A start after a crash replays the log, which may take a while.
const START_LIMIT: Duration = Duration::from_secs(120);

const SUPERUSER: &str = "postgres";

/// The folder of a server: its settings, its log and, where that is possible, its data.
pub struct Home {
    folder: PathBuf,
    data: PathBuf,
}

/// What is kept of a server between its runs, in `settings.json`, readable by its owner alone.
#[derive(Serialize, Deserialize)]
struct Settings {
    /// The port of the last run, which the next one takes too if it is free.
    port: u16,
    superuser_password: String,
}

/// A running server. Dropping it shuts it down: open connections are cut, nothing that was committed is lost.
pub struct Server {
    process: Process,
    settings: Settings,
}

impl Home {
    /// The server that lives in `folder`, which is made if need be.
    pub fn new(folder: PathBuf) -> Result<Home> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let data = data_folder(&folder)?;
        Ok(Home { folder, data })
    }

    /// Starts the server, making it the first time. `options` are server settings (`name=value`). A server that an
    /// earlier run left behind because it was killed is ended first.
    pub fn start(&self, options: &[&str]) -> Result<Server> {
        let version = fs::read_to_string(self.data.join("PG_VERSION")).ok();
        let programs = Programs::find_or_install(version.map(|major| major.trim().parse()).transpose()?)?;
        let owner = Owner::find()?;

        let mut settings = if self.data.exists() {
            self.settings()?
        } else {
            let settings = Settings { port: ports::free()?, superuser_password: secret::generate() };
            self.keep(&settings)?;
            self.make_data(&programs, owner, &settings.superuser_password)?;
            settings
        };
        self.end_leftover()?;
        if !ports::is_free(settings.port) {
            settings.port = ports::free()?;
            self.keep(&settings)?;
        }

        let log =
            File::create(self.log()).with_context(|| format!("cannot write {}", self.log().display()))?;
        let mut postgres = programs.command("postgres", owner);
        postgres.arg("-D").arg(&self.data).stdout(log.try_clone()?).stderr(log);
        let port = format!("port={}", settings.port);
        for option in ["listen_addresses=127.0.0.1", "unix_socket_directories=", &port].iter().chain(options)
        {
            postgres.args(["-c", option]);
        }
        // SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait until every client has gone.
        let process = Process::start_to_stop_with(Signal::INT, "PostgreSQL", &mut postgres)?;
        let mut server = Server { process, settings };
        self.wait_until_ready(&mut server.process)?;
        Ok(server)
    }

    /// The superuser's URL of this server while another process runs it.
    pub fn superuser_url(&self) -> Result<String> {
        Ok(self.settings()?.superuser_url())
    }

    /// Ends the server if an earlier run was killed and left it behind.
    pub fn end_leftover(&self) -> Result<()> {
        // Only a server that lets our password in is ours; the process id in the note might be anyone's by now.
        let noted = self.data.join("postmaster.pid").exists();
        let ours = |settings: Settings| run(&settings.superuser_url(), "SELECT 1").is_ok();
        if noted && self.settings().is_ok_and(ours) {
            progress::note("ending the PostgreSQL that an earlier run left behind");
            let mut stop = Programs::find_or_install(None)?.command("pg_ctl", Owner::find()?);
            processes::output("pg_ctl", stop.arg("-D").arg(&self.data).args(["-m", "fast", "-w", "stop"]))?;
        }
        Ok(())
    }

    /// Removes the server, which must not run, with its data.
    pub fn remove(self) -> Result<()> {
        for folder in [&self.data, &self.folder] {
            if folder.exists() {
                fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
            }
        }
        Ok(())
    }

    /// The file with what the server printed since its last start.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn settings(&self) -> Result<Settings> {
        let file = self.folder.join("settings.json");
        let text = fs::read_to_string(&file).with_context(|| {
            format!(
                "{} is gone: put it back, or remove {} to begin anew",
                file.display(),
                self.data.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", file.display()))
    }

    fn keep(&self, settings: &Settings) -> Result<()> {
        secret::write(&self.folder.join("settings.json"), &serde_json::to_string_pretty(settings)?)
    }

    fn make_data(&self, programs: &Programs, owner: Owner, password: &str) -> Result<()> {
        if !self.data.starts_with(&self.folder) {
            let (data, folder) = (self.data.display(), self.folder.display());
            progress::note(&format!("the data is in {data}: PostgreSQL's user may not enter {folder}"));
        }
        // Renamed when it is complete, so that an interrupted run leaves nothing that looks like a database.
        let partial = self.data.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
        }
        fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o700))?;
        owner.give(&partial)?;

        let password_file = self.data.with_extension("password");
        secret::write(&password_file, password)?;
        owner.give(&password_file)?;
        let mut initdb = programs.command("initdb", owner);
        initdb.arg("-D").arg(&partial).arg("--pwfile").arg(&password_file);
        initdb.args(["--username", SUPERUSER, "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"]);
        let made = processes::output("initdb", &mut initdb);
        fs::remove_file(&password_file)?;
        made?;
        fs::rename(&partial, &self.data).with_context(|| format!("cannot make {}", self.data.display()))
    }

    fn wait_until_ready(&self, process: &mut Process) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(status) = process.exit_status()? {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                bail!("PostgreSQL did not start ({status}):\n{}", log.trim_end());
            }
            // The server's own note for others: its process id in the first line, its state in the eighth.
            let note = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
            let lines: Vec<&str> = note.lines().map(str::trim).collect();
            if lines.first() == Some(&process.id().to_string().as_str()) && lines.get(7) == Some(&"ready") {
                return Ok(());
            }
            if started.elapsed() > START_LIMIT {
                bail!(
                    "PostgreSQL was not ready after {} s: see {}",
                    START_LIMIT.as_secs(),
                    self.log().display()
                );
            }
            processes::pause(Duration::from_millis(20))?;
        }
    }
}

/// Runs statements, given as one text; what they return is dropped.
pub fn run(url: &str, statements: &str) -> Result<()> {
    let work = async {
        let mut config: Config = url.parse()?;
        config.connect_timeout(Duration::from_secs(5));
        let (client, connection) = config.connect(NoTls).await.context("cannot connect to PostgreSQL")?;
        let connection = tokio::spawn(connection);
        client.batch_execute(statements).await?;
        drop(client);
        Ok(connection.await??)
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

impl Server {
    /// The process, to see whether it still runs.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends the server as a crash of its machine would: no process of it does anything any more. [`Home::start`] then
    /// starts it again, with everything that was committed.
    pub fn kill(mut self) {
        self.signal_all(Signal::KILL);
        self.process.kill();
    }

    /// Lets every process of the server stand still until [`thaw`](Self::thaw). It keeps its connections, and the
    /// system goes on accepting some.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    /// The server's processes are sessions of their own, so they are not reached by its process group.
    fn signal_all(&self, signal: Signal) {
        // Meanwhile it makes no new ones.
        self.process.signal(Signal::STOP);
        for child in processes::children(self.process.id()) {
            processes::signal(child, signal);
        }
        self.process.signal(signal);
    }

    /// The URL of the database `postgres`, as superuser.
    pub fn superuser_url(&self) -> String {
        self.settings.superuser_url()
    }
}

impl Settings {
    fn superuser_url(&self) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/postgres", self.superuser_password, self.port)
    }
}

/// `home/data`; or, when root runs this below a folder that the server's user may not enter, a folder in `/var/lib`.
fn data_folder(home: &Path) -> Result<PathBuf> {
    let home = fs::canonicalize(home).with_context(|| format!("cannot find {}", home.display()))?;
    let open =
        |folder: &Path| fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o001 != 0);
    if !geteuid().is_root() || home.ancestors().all(open) {
        return Ok(home.join("data"));
    }
    let digest = Sha256::digest(home.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Ok(PathBuf::from(format!("/var/lib/postgresql/llm-jobs-{name}")))
}
