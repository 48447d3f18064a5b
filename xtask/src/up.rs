//! `cargo xtask up`: the whole application on this machine, with everything that it needs.

use crate::{
    application::{self, Runtime},
    components::{self, Scope},
    database::{self, Address, Urls},
    demo,
    litellm::{self, LiteLlm},
    lock::{self, Lock},
    ports,
    postgres::{Home, Server},
    processes::{self, Process},
    progress, project, secret,
};
use anyhow::{Context, Result, bail};
use std::{env, thread, time::Duration};

/// What the command line says.
#[derive(clap::Args)]
pub struct Options {
    /// The port of 127.0.0.1 to listen on.
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// Create an organization and a team, run a job with two calls and show every request with its answer.
    #[arg(long)]
    demo: bool,
    /// Leave after the demo instead of going on serving.
    #[arg(long, requires = "demo")]
    exit: bool,
    /// Take what was built before.
    #[arg(long)]
    no_build: bool,
}

/// Starts everything and serves until a signal comes or a part fails; then stops all of it, the application first.
pub fn run(options: &Options) -> Result<()> {
    let own_litellm = LiteLlm::from_environment()?;
    let own_database = variable("DATABASE_URL");
    if let Some(url) = &own_database {
        Address::parse(url).context("DATABASE_URL")?;
    }
    let Some(_lock) = lock()? else {
        bail!(
            "`cargo xtask up` is already running in this checkout: stop it first, with Ctrl-C where it runs"
        );
    };
    if !ports::is_free(options.port) {
        let (taken, free) = (options.port, ports::free()?);
        bail!("port {taken} is taken by another program: choose another one, as in `--port {free}`");
    }

    let runtime = Runtime::find();
    if !options.no_build {
        components::build(Scope::Application)?;
        build_programs(runtime, own_litellm.is_none())?;
    }

    // What was started last is dropped first, on every way out of here.
    let (mut postgres, urls) = start_database(own_database)?;
    database::migrate(&urls.owner)?;
    let database_url = urls.application;
    let (mut stand_in, mut litellm) = start_litellm(own_litellm)?;
    let admin_key = AdminKey::find()?;
    let title = match runtime {
        Runtime::Spin => "Starting the application with Spin",
        Runtime::Host => "Starting the application with the project's own host",
    };
    let mut application = progress::step(title, || {
        application::start(runtime, options.port, &Address::parse(&database_url)?, &litellm, &admin_key.key)
    })?;

    let base = format!("http://127.0.0.1:{}", options.port);
    println!("\nllm-jobs runs at {base}\n");
    admin_key.print();
    match &postgres {
        Some(_) => println!("  database   {database_url}"),
        None => println!("  database   the one in DATABASE_URL"),
    }
    match &stand_in {
        Some(_) => println!("  LiteLLM    {} (a stand-in: it echoes, no model thinks)", litellm.url),
        None => println!("  LiteLLM    {}", litellm.url),
    }
    println!("\nTry:\n  curl {base}/health");
    println!(
        "  curl -X POST {base}/api/organizations/create -H \"X-Admin-Key: {}\" \
         -d '{{\"organization_id\": \"acme\", \"name\": \"Acme\"}}'",
        admin_key.in_shell()
    );

    if options.demo {
        if litellm.models.is_empty() {
            litellm.find_models()?;
        }
        demo::run(&base, &admin_key.key, &litellm.models).context("the demo failed")?;
    }
    if !options.exit {
        println!("\nServing, with an upkeep every minute. Ctrl-C stops everything.");
        keep_up(base, admin_key.key);
        let parts = [Some(&mut application), stand_in.as_mut(), postgres.as_mut().map(Server::process)];
        serve(parts.into_iter().flatten().collect())?;
    }
    progress::step("Stopping", || {
        drop((application, stand_in, postgres));
        Ok(())
    })
}

/// Requests the upkeep every minute for as long as this program runs, as a timer does in production.
fn keep_up(base: String, admin_key: String) {
    thread::spawn(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(240)))
            .proxy(None)
            .build()
            .into();
        loop {
            thread::sleep(Duration::from_secs(60));
            let request = agent.post(format!("{base}/api/upkeep")).header("x-admin-key", &admin_key);
            // While the application stops there is no answer.
            if let Err(error) = request.send("{}")
                && !processes::interrupted()
            {
                eprintln!("the upkeep failed: {error}");
            }
        }
    });
}

fn start_database(own: Option<String>) -> Result<(Option<Server>, Urls)> {
    if let Some(application) = own {
        let owner = variable("MIGRATION_DATABASE_URL").unwrap_or_else(|| application.clone());
        return Ok((None, Urls { owner, application }));
    }
    let home = database_home()?;
    let server = progress::step("Starting PostgreSQL", || home.start(&[]))?;
    let urls = application_database(&server.superuser_url())?;
    Ok((Some(server), urls))
}

fn start_litellm(own: Option<LiteLlm>) -> Result<(Option<Process>, LiteLlm)> {
    if let Some(litellm) = own {
        return Ok((None, litellm));
    }
    let (litellm, process) = progress::step("Starting the LiteLLM stand-in", LiteLlm::start_stand_in)?;
    Ok((Some(process), litellm))
}

/// The key for `X-Admin-Key`.
struct AdminKey {
    key: String,
    /// It came from the environment, and is not shown.
    own: bool,
}

impl AdminKey {
    fn find() -> Result<AdminKey> {
        Ok(match variable("ADMIN_KEY") {
            Some(key) => AdminKey { key, own: true },
            None => AdminKey { key: secret::kept("admin-key")?, own: false },
        })
    }

    fn print(&self) {
        if self.own {
            println!("  admin key  the one in ADMIN_KEY");
        } else {
            println!("  admin key  {} (kept in .data/admin-key)", self.key);
        }
    }

    /// What stands for the key in a shell.
    fn in_shell(&self) -> &'static str {
        if self.own { "$ADMIN_KEY" } else { "$(cat .data/admin-key)" }
    }
}

/// Held by `up` while it runs; `None` when one runs in this checkout.
pub fn lock() -> Result<Option<Lock>> {
    lock::try_take(&project::data()?.join("up.lock"))
}

/// The private server of this checkout.
pub fn database_home() -> Result<Home> {
    Home::new(project::data()?.join("postgres"))
}

/// The application's database in the private server, made if need be.
pub fn application_database(superuser_url: &str) -> Result<Urls> {
    database::make_application_database(superuser_url, &secret::kept("database-password")?)
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn build_programs(runtime: Runtime, stand_in: bool) -> Result<()> {
    let needed = [(runtime == Runtime::Host, application::HOST), (stand_in, litellm::STAND_IN)];
    let needed: Vec<&str> = needed.into_iter().filter(|(needed, _)| *needed).map(|(_, name)| name).collect();
    if needed.is_empty() {
        return Ok(());
    }
    progress::step(&format!("Building {}", needed.join(" and ")), || {
        let mut cargo = project::cargo("build");
        cargo.args(needed.iter().flat_map(|package| ["--package", package]));
        processes::run("cargo build", &mut cargo)
    })
}

/// Waits for a signal, which is the ordinary end; an error when a part ends by itself.
fn serve(mut parts: Vec<&mut Process>) -> Result<()> {
    while !processes::interrupted() {
        for part in &mut parts {
            if let Some(status) = part.exit_status()? {
                bail!("{} ended by itself ({status})", part.name());
            }
        }
        // Ends early with the signal that the loop looks for.
        let _ = processes::pause(Duration::from_millis(200));
    }
    Ok(())
}
