//! PostgreSQL is out of reach, says nothing, or takes no further connection, and then does again.

use crate::asking::{ask, assert_unavailable, call, complete, create_job};
use api_tests::{Team, eventually};
use faults::{Application, Mode, Postgres, Setup};
use futures::future::join_all;

/// An application with a database server that may be killed, with these settings.
pub async fn app_with_a_server_of_its_own(options: &[&'static str]) -> Application {
    let postgres = Postgres::start(options).await.expect("a server");
    Application::start_with(Setup { postgres: Some(postgres), ..Setup::default() }).await
}

/// The application's own PostgreSQL server.
pub fn postgres(app: &Application) -> &Postgres {
    app.postgres.as_ref().expect("a server of its own")
}

/// Requests of several teams at once, of every kind that needs the database; each must be refused within [`BOUND`].
async fn all_are_refused_in_time(app: &Application, teams: &[Team], jobs: &[String]) {
    let requests = teams.iter().zip(jobs).flat_map(|(team, job)| {
        [
            create_job(team, None),
            call(team, job, "hello", None),
            complete(team, job, None),
            team.client.request(reqwest::Method::GET, &format!("/api/jobs/{job}")),
            team.client.request(reqwest::Method::GET, &format!("/api/credits/teams/{}/balance", team.id)),
        ]
    });
    for answer in join_all(requests.map(ask)).await {
        assert_unavailable(&answer.expect("an answer"), "no database");
    }
    let health = ask(app.nobody(0).request(reqwest::Method::GET, "/health")).await.expect("an answer");
    assert_eq!(health.status, 503, "{}", health.text);
}

async fn teams_with_jobs(app: &Application) -> (Vec<Team>, Vec<String>) {
    let (mut teams, mut jobs) = (vec![], vec![]);
    for _ in 0..3 {
        let team = app.team(10).await;
        jobs.push(team.job().await);
        teams.push(team);
    }
    (teams, jobs)
}

async fn nothing_has_happened(teams: &[Team]) {
    for team in teams {
        let balance = team.balance().await;
        assert_eq!(
            (&balance["credits_used"], &balance["credits_reserved"]),
            (&0.into(), &1.into()),
            "{balance}"
        );
    }
}

#[tokio::test]
async fn a_server_that_nobody_reaches_is_not_waited_for_without_end() {
    let app = Application::start().await;
    let (teams, jobs) = teams_with_jobs(&app).await;
    for mode in [Mode::Refuse, Mode::Reset] {
        app.to_database.set(mode).await;
        app.to_database.cut();
        all_are_refused_in_time(&app, &teams, &jobs).await;
    }
    app.to_database.set(Mode::Pass).await;
    nothing_has_happened(&teams).await;
    app.recovers().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_that_no_connection_reaches_is_not_waited_for_without_end() {
    let app = Application::start().await;
    let (teams, jobs) = teams_with_jobs(&app).await;
    app.to_database.set(Mode::Ignore).await;
    app.to_database.cut();
    all_are_refused_in_time(&app, &teams, &jobs).await;
    app.to_database.set(Mode::Pass).await;
    nothing_has_happened(&teams).await;
    app.recovers().await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_without_end() {
    let frozen = async {
        let app = app_with_a_server_of_its_own(&[]).await;
        let (teams, jobs) = teams_with_jobs(&app).await;
        postgres(&app).freeze().await;
        all_are_refused_in_time(&app, &teams, &jobs).await;
        // What it has got by then happens now, and nobody is told.
        postgres(&app).thaw().await;
        app.recovers().await;
    };
    let stalled = async {
        let app = Application::start().await;
        let (teams, jobs) = teams_with_jobs(&app).await;
        app.to_database.set(Mode::Stall).await;
        all_are_refused_in_time(&app, &teams, &jobs).await;
        // What was sent is lost with its connections, as when a firewall has forgotten them.
        app.to_database.cut();
        app.to_database.set(Mode::Pass).await;
        nothing_has_happened(&teams).await;
        app.recovers().await;
    };
    tokio::join!(frozen, stalled);
}

#[tokio::test]
async fn a_server_with_no_connection_left_is_a_503_until_it_has_some_again() {
    let app = app_with_a_server_of_its_own(&["max_connections=40"]).await;
    let (teams, jobs) = teams_with_jobs(&app).await;
    // What the application has open goes, and somebody else takes all.
    app.to_database.cut();
    let greedy = eventually("no connection left", async || {
        let mut clients = vec![];
        while let Ok((client, connection)) =
            tokio_postgres::connect(postgres(&app).superuser_url(), tokio_postgres::NoTls).await
        {
            tokio::spawn(connection);
            clients.push(client);
        }
        (clients.len() > 30).then_some(clients)
    })
    .await;
    all_are_refused_in_time(&app, &teams, &jobs).await;
    drop(greedy);
    eventually("a connection", async || {
        (ask(create_job(&teams[0], None)).await?.status == 200).then_some(())
    })
    .await;
    app.recovers().await;
}

#[tokio::test]
async fn more_requests_than_the_server_has_connections_are_answered_or_told_to_come_again() {
    let app = app_with_a_server_of_its_own(&["max_connections=14"]).await;
    let team = app.team(1000).await;
    let answers = join_all((0..100).map(|_| ask(create_job(&team, None)))).await;
    let mut opened = 0;
    for answer in answers {
        let answer = answer.expect("an answer");
        match answer.status.as_u16() {
            200 => opened += 1,
            _ => assert_unavailable(&answer, "too many"),
        }
    }
    assert!(opened > 0);
    // Each component keeps the connections that it has made, so a host whose components together may have more than the
    // server gives can leave one of them without any until it is started anew. That is for whoever sizes both.
    app.hosts[0].stop().await;
    app.hosts[0].restart().await.expect("started again");
    assert_eq!(app.number("SELECT count(*) FROM jobs").await, opened);
    assert_eq!(app.number("SELECT held FROM credit_accounts").await, opened);
    app.recovers().await;
}
