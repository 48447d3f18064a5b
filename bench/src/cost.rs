//! What one call costs, counted: statements, round trips, bytes, processor time, and what our own code does for it.

use crate::{figures::Figures, programs::beside, world::World, wrk::Load};
use anyhow::{Context, Result};
use faults::{Direction, Proxy};
use private_postgres::processes;
use std::{net::SocketAddr, process::Command, time::Duration};

/// Seconds of calls, one at a time.
const SECONDS: u32 = 5;

/// Counts what crosses the connections to PostgreSQL and to LiteLLM, and who works how long for it.
pub async fn measure(world: &World, figures: &mut Figures) -> Result<()> {
    let to_database = Proxy::start(database_address(world)?).await?;
    let to_litellm = Proxy::start(address(&world.stand_in.url)?).await?;
    let host = world.application_through(to_database.address(), to_litellm.address())?;
    let to_us = Proxy::start(address(&host.url)?).await?;
    let teams = world.teams(4).await;
    let calls = crate::call::calls_in_jobs(&teams, 4).await;
    let load = Load::post(calls, &crate::call::chat(None))?;
    let url = format!("http://{}", to_us.address());
    load.run(&url, 1, 2)?;
    let client = &world.database.client;
    client.batch_execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").await?;
    let reset =
        "SELECT pg_stat_statements_reset(0, oid, 0) FROM pg_database WHERE datname = current_database()";
    client.query(reset, &[]).await?;

    let proxies = [("client", &to_us), ("PostgreSQL", &to_database), ("LiteLLM", &to_litellm)];
    let count = || {
        proxies.map(|(_, proxy)| {
            let (up, down) = (Direction::ToServer, Direction::ToClient);
            [proxy.round_trips(), proxy.passed(up), proxy.passed(down), proxy.pieces(up), proxy.pieces(down)]
        })
    };
    let (before, worked) = (count(), [host.worked()?, postgres_worked(world).await?]);
    let calls = load.run(&url, 1, SECONDS)?.requests() as f64;
    let (after, worked_then) = (count(), [host.worked()?, postgres_worked(world).await?]);

    let ran = "SELECT sum(calls)::float8, sum(total_exec_time)::float8 FROM pg_stat_statements
               WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query ~ '_call\\('";
    let row = client.query_one(ran, &[]).await?;
    figures.add_count("cost", "statements", "a call", row.get::<_, f64>(0) / calls);
    figures.add_count("cost", "run time of the statements", "ms a call", row.get::<_, f64>(1) / calls);
    for (((name, _), before), after) in proxies.iter().zip(before).zip(after) {
        let [round_trips, to_server, to_client, pieces_up, pieces_down] =
            [0, 1, 2, 3, 4].map(|at| (after[at] - before[at]) as f64 / calls);
        figures.add_count("cost", format!("round trips, {name}"), "a call", round_trips);
        figures.add_count("cost", format!("bytes to the server, {name}"), "a call", to_server);
        figures.add_count("cost", format!("bytes to the client, {name}"), "a call", to_client);
        figures.add_count("cost", format!("pieces to the server, {name}"), "a call", pieces_up);
        figures.add_count("cost", format!("pieces to the client, {name}"), "a call", pieces_down);
    }
    for ((name, before), after) in ["the host", "PostgreSQL"].into_iter().zip(worked).zip(worked_then) {
        let worked = (after - before).as_secs_f64() * 1e3 / calls;
        figures.add_count("cost", format!("processor time of {name}"), "ms a call", worked);
    }
    of_our_code(figures)
}

/// Instructions and allocations of reading a request, writing LiteLLM's, reading its answer and writing ours, natively
/// built.
fn of_our_code(figures: &mut Figures) -> Result<()> {
    let run = |times: u32| -> Result<(f64, f64)> {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        let output = valgrind.arg(beside("code-path")?).arg(times.to_string()).output();
        let output = output.context("cannot start valgrind (on Debian: apt-get install valgrind)")?;
        let instructions = String::from_utf8_lossy(&output.stderr)
            .lines()
            .find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
            .context("callgrind counted nothing")?;
        Ok((instructions, String::from_utf8_lossy(&output.stdout).trim().parse()?))
    };
    let ((fewer, few), (more, many)) = (run(200)?, run(1200)?);
    figures.add_count("cost", "instructions of our code, natively", "a call", (more - fewer) / 1000.0);
    figures.add_count("cost", "allocations of our code, natively", "a call", (many - few) / 1000.0);
    Ok(())
}

/// The time that all processes of the server have worked.
async fn postgres_worked(world: &World) -> Result<Duration> {
    let backend: i32 = world.database.client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let postmaster =
        processes::parent(backend.unsigned_abs()).context("the server is not on this machine")?;
    Ok(processes::children(postmaster).into_iter().filter_map(processes::worked).sum())
}

fn database_address(world: &World) -> Result<SocketAddr> {
    let [(_, host), (_, port), ..] = world.database.variables();
    Ok(format!("{host}:{port}").parse()?)
}

fn address(url: &str) -> Result<SocketAddr> {
    Ok(url.trim_start_matches("http://").parse()?)
}
