//! Jobs and calls are in the tables of their month, which are made ahead of time and dropped as a whole.

use futures::future::join_all;
use serde_json::{Value, json};
use sql_tests::{Expect, Session, Team, World};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// When the month begins that is so many months from this one.
fn start(from_now: i32) -> String {
    format!(
        "(date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => {from_now})) AT TIME ZONE 'UTC'"
    )
}

/// Its `YYYY_MM`.
async fn month(world: &World, from_now: i32) -> String {
    world.text(&format!("SELECT to_char({} AT TIME ZONE 'UTC', 'YYYY_MM')", start(from_now))).await
}

/// The tables of months: those of jobs, once it is certain that those of calls are the same ones.
async fn months(world: &World) -> Vec<String> {
    let tables = async |of: &str| {
        let statement = "SELECT substr(relname, length($1) + 2)::text FROM pg_inherits
                         JOIN pg_class ON pg_class.oid = inhrelid
                         WHERE inhparent = $1::text::regclass AND relname !~ 'other' ORDER BY 1";
        let rows = world.client.query(statement, &[&of]).await.expect("tables");
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    assert_eq!(tables("jobs").await, tables("calls").await);
    tables("jobs").await
}

/// Makes the tables of months that have passed, as a deployment of that age has them.
async fn make_past_months(world: &World, number: i32) {
    for back in 1..=number {
        let month = month(world, -back).await;
        for table in ["jobs", "calls"] {
            let statement = format!(
                "DO $do$ BEGIN EXECUTE
                 format('CREATE TABLE {table}_{month} PARTITION OF {table} FOR VALUES FROM (%L) TO (%L)',
                     uuid_v7_floor({}), uuid_v7_floor({})); END $do$",
                start(-back),
                start(1 - back)
            );
            world.run(&statement).await.done();
        }
    }
}

/// A completed job with a call, of that day from today.
async fn job_of(world: &World, team: &Team, days: i32) -> Uuid {
    world.make_ids_of(days).await;
    let job = world.job(team).await;
    let call = world.opened_call(team, job).await;
    world.settle_call(call, "succeeded", 3, Some("0.25"), true).await.done();
    world.complete_job(team.key, job, "completed", &json!({})).await.done();
    world.make_ids_of(0).await;
    job
}

/// The tables in which a job and its calls are.
async fn places(world: &World, job: Uuid) -> (String, String) {
    let place = async |table: &str| {
        world.text(&format!("SELECT DISTINCT tableoid::regclass FROM {table} WHERE job_id = '{job}'")).await
    };
    (place("jobs").await, place("calls").await)
}

#[tokio::test]
async fn a_job_and_its_calls_are_in_the_tables_of_its_month_or_else_in_those_of_other_months() {
    let world = World::new().await;
    world.allow_ids_of_other_days().await;
    let team = world.team(50).await;
    make_past_months(&world, 2).await;
    let made = months(&world).await;
    assert_eq!(made.len(), 5, "{made:?}");
    for days in [-400, -70, -33, -28, 0, 28, 33, 70, 400] {
        let job = job_of(&world, &team, days).await;
        let statement =
            format!("SELECT to_char((now() AT TIME ZONE 'UTC') + interval '{days} days', 'YYYY_MM')");
        let month = Some(world.text(&statement).await).filter(|month| made.contains(month));
        let month = month.unwrap_or_else(|| "other".into());
        assert_eq!(places(&world, job).await, (format!("jobs_{month}"), format!("calls_{month}")), "{days}");
        let read = world.get_job(job).await.done();
        assert_eq!((&read["job"]["status"], &read["calls"][0]["tokens"]), (&json!("completed"), &json!(3)));
    }
    world.check_invariants().await;
}

#[tokio::test]
async fn a_month_is_a_calendar_month_in_utc_whatever_the_time_zone_of_who_makes_it() {
    for zone in ["UTC", "America/New_York", "Pacific/Kiritimati", "Asia/Kathmandu"] {
        let world = World::new().await;
        world.team(1).await;
        for month in months(&world).await {
            world.run(&format!("DROP TABLE jobs_{month}, calls_{month}")).await.done();
        }
        world.run(&format!("SET TIME ZONE '{zone}'")).await.done();
        assert_eq!(world.text("make_months(13)").await, "14", "{zone}");
        world.run("SET TIME ZONE 'UTC'").await.done();
        for ahead in 0..14 {
            let month = month(&world, ahead).await;
            let place = async |moment: &str| {
                let job = "INSERT INTO jobs (job_id, team_id, terms_id, job_type, metadata, expires_at)
                           SELECT uuid_v7_floor($MOMENT), team_id, terms_id, '', '{}', now() FROM teams
                           RETURNING to_json(tableoid::regclass::text)::text";
                let moment = format!("{} + interval '{moment}'", start(ahead));
                world.call(&job.replace("$MOMENT", &moment), &[]).await.done()
            };
            let table = json!(format!("jobs_{month}"));
            assert_eq!(place("0").await, table, "{zone}");
            assert_ne!(place("-1 ms").await, table, "{zone}");
            assert_eq!(place("27 days 23 hours 59 minutes").await, table, "{zone}");
        }
    }
}

#[tokio::test]
async fn months_are_made_once_also_by_several_at_once() {
    let world = World::new().await;
    assert_eq!(
        months(&world).await,
        [month(&world, 0).await, month(&world, 1).await, month(&world, 2).await]
    );
    assert_eq!(world.text("make_months(2)").await, "0");
    let sessions = join_all((0..8).map(|_| world.session())).await;
    let made =
        join_all(sessions.iter().map(|session| session.call("SELECT make_months(6)::text", &[]))).await;
    let times = |expected: &Value| {
        made.iter().filter(|made| made.as_ref().is_ok_and(|made| made == expected)).count()
    };
    // Who would have to wait for long gives up.
    let given_up =
        made.iter().filter(|made| made.as_ref().is_err_and(|refusal| refusal.sqlstate == "55P03")).count();
    assert_eq!((times(&json!(4)), times(&json!(0)) + given_up), (1, 7), "{made:?}");
    assert_eq!(months(&world).await.len(), 7);
}

#[tokio::test]
async fn a_month_that_has_rows_elsewhere_is_left_out_and_those_after_it_are_made() {
    for table in ["jobs", "calls"] {
        let world = World::new().await;
        world.allow_ids_of_other_days().await;
        let team = world.team(5).await;
        let statement = "SELECT ((now() AT TIME ZONE 'UTC')::date + interval '4 months')::date - \
                         (now() AT TIME ZONE 'UTC')::date";
        let days = world.text(statement).await.parse().expect("days");
        let job = job_of(&world, &team, days).await;
        assert_eq!(places(&world, job).await, ("jobs_other".into(), "calls_other".into()));
        // As it is when only one of them has rows there.
        let other = if table == "jobs" { "calls" } else { "jobs" };
        world.run(&format!("DELETE FROM {other}")).await.done();

        assert_eq!(world.text("make_months(5)").await, "2", "{table}: of the three that are missing");
        assert_eq!(world.text("make_months(5)").await, "0", "{table}");
        assert!(!months(&world).await.contains(&month(&world, 4).await));
        assert!(months(&world).await.contains(&month(&world, 5).await));
        assert_eq!(world.text(&format!("SELECT count(*) FROM {table}_other")).await, "1");
    }
}

#[tokio::test]
async fn jobs_without_a_months_table_get_one_and_are_as_they_were() {
    let world = World::new().await;
    world.allow_ids_of_other_days().await;
    let team = world.team(50).await;
    let this = month(&world, 0).await;
    world.run(&format!("DROP TABLE jobs_{this}, calls_{this}")).await.done();
    let mut jobs = vec![];
    for days in [-70, -40, 0] {
        jobs.push(job_of(&world, &team, days).await);
    }
    // By a clock that was wrong.
    jobs.push(job_of(&world, &team, 400).await);
    let (open, call) = (world.job(&team).await, world.job(&team).await);
    let call = (call, world.opened_call(&team, call).await);
    let everything = "SELECT (SELECT json_agg(j ORDER BY job_id) FROM jobs j)::text
                          || (SELECT json_agg(c ORDER BY call_id) FROM calls c)";
    let before = world.text(everything).await;
    world.check_invariants().await;
    assert_eq!(world.text("make_months(2)").await, "0", "not where there are rows");

    for more in [true, false] {
        let adopted = world.call("SELECT adopt_other_months()::text", &[]).await.done();
        assert_eq!(adopted, json!({"done": 1, "more": more}));
    }
    assert_eq!(
        world.call("SELECT adopt_other_months()::text", &[]).await.done(),
        json!({"done": 0, "more": false})
    );
    assert_eq!(
        world.text("SELECT (SELECT count(*) FROM jobs_other) + (SELECT count(*) FROM calls_other)").await,
        "0"
    );
    assert_eq!(world.text(everything).await, before);
    let statement = "SELECT to_char(min(created), 'YYYY_MM') || '_to_' || to_char(max(created), 'YYYY_MM')
                     FROM unnest(ARRAY[(now() AT TIME ZONE 'UTC') - interval '70 days', now() AT TIME ZONE 'UTC'])
                         AS created";
    let range = world.text(statement).await;
    let (first, table) = (jobs[0], (format!("jobs_{range}"), format!("calls_{range}")));
    assert_eq!(places(&world, first).await, table);
    assert_eq!(places(&world, call.0).await, table);
    // All goes on there.
    world.settle_call(call.1, "succeeded", 3, Some("0.25"), true).await.done();
    for job in [open, call.0] {
        world.complete_job(team.key, job, "completed", &json!({})).await.done();
    }
    let job = job_of(&world, &team, 0).await;
    assert_eq!(places(&world, job).await, table);
    assert_eq!(world.text("make_months(3)").await, "1");
    world.check_invariants().await;
}

#[tokio::test]
async fn a_months_table_that_was_made_late_is_named_and_dropped_like_others() {
    let world = World::new().await;
    world.allow_ids_of_other_days().await;
    let team = world.team(50).await;
    let days = "SELECT (now() AT TIME ZONE 'UTC')::date
                    - ((date_trunc('month', now() AT TIME ZONE 'UTC') - interval '2 months')::date)";
    let days: i32 = world.text(days).await.parse().expect("days");
    let job = job_of(&world, &team, -days).await;
    world.call("SELECT adopt_other_months()::text", &[]).await.done();
    let name = month(&world, -2).await;
    assert_eq!(places(&world, job).await, (format!("jobs_{name}"), format!("calls_{name}")));
    assert_eq!(drop_months(&world, 2).await, 0);
    assert_eq!(drop_months(&world, 1).await, 1);
    assert_eq!(world.text("SELECT count(*) FROM jobs").await, "0");
}

/// As the upkeep drops them. Answers how many.
async fn drop_months(world: &World, months: i32) -> i64 {
    let mut dropped = 0;
    loop {
        let done = world.call("SELECT drop_month($1)::text", &[&months]).await.done();
        dropped += done["done"].as_i64().expect("a number");
        if done["more"] == json!(false) {
            return dropped;
        }
    }
}

#[tokio::test]
async fn what_is_open_in_a_month_is_ended_before_the_month_is_dropped() {
    let world = World::new().await;
    world.allow_ids_of_other_days().await;
    let team = world.team(2000).await;
    make_past_months(&world, 3).await;
    world.make_ids_of(-80).await;
    let mut jobs = vec![];
    for _ in 0..450 {
        jobs.push(world.job(&team).await);
    }
    for job in &jobs[..5] {
        let call = world.opened_call(&team, *job).await;
        world.call_is_overdue(call).await;
    }
    world.make_ids_of(0).await;
    world.run("UPDATE jobs SET expires_at = now() - interval '50 days'").await.done();
    let now = world.job(&team).await;
    assert_eq!(drop_months(&world, 1).await, 2);
    assert_eq!(world.account(&team).await, (2000, 0, 1));
    assert_eq!(world.text("SELECT count(*) FROM jobs").await, "1");
    assert_eq!(world.job_status(now).await, "pending");
    let expired = "SELECT sum(expired) FROM usage_days";
    assert_eq!(world.text(expired).await, "450");
}

#[tokio::test]
async fn whole_months_that_are_old_enough_are_dropped_and_ledger_and_usage_stay() {
    let world = World::new().await;
    world.allow_ids_of_other_days().await;
    let team = world.team(50).await;
    make_past_months(&world, 6).await;
    for days in [-400, -180, -150, -120, -90, -60, -30, 0, 30] {
        job_of(&world, &team, days).await;
    }
    world.check_invariants().await;
    let kept =
        "SELECT json_build_array((SELECT json_agg(x ORDER BY entry) FROM credit_transactions x), metrics(),
                       (SELECT json_agg(u ORDER BY day) FROM usage_days u),
                       (SELECT json_agg(u ORDER BY day) FROM usage_models u),
                       organization_usage('org', '2000-01-01', '2100-01-01'), get_balance('team-0'))";
    let before = world.text(kept).await;
    let others = world.text("SELECT count(*) FROM jobs_other").await;

    // How old the oldest month is that is still there.
    for (keep, dropped, oldest) in
        [(0, 0, 6), (7, 0, 6), (6, 0, 6), (5, 1, 5), (3, 2, 3), (3, 0, 3), (1, 2, 1)]
    {
        assert_eq!(drop_months(&world, keep).await, dropped, "{keep}");
        assert_eq!(months(&world).await.first(), Some(&month(&world, -oldest).await), "{keep}");
    }
    assert_eq!(world.text(kept).await, before);
    assert_eq!(
        world.text("SELECT count(*) FROM jobs_other").await,
        others,
        "what has no month's table stays"
    );
    let kept_jobs =
        "SELECT bool_and(job_id >= uuid_v7_floor(date_trunc('month', now(), 'UTC') - interval '31 days'))
         FROM jobs
                     WHERE tableoid <> 'jobs_other'::regclass";
    assert_eq!(world.text(kept_jobs).await, "true");
}

#[tokio::test]
async fn keeping_months_makes_those_ahead() {
    let world = World::new().await;
    let ahead = month(&world, 2).await;
    world.run(&format!("DROP TABLE jobs_{ahead}, calls_{ahead}")).await.done();
    for made in [1, 0] {
        let kept = world.call("SELECT keep_months()::text", &[]).await.done();
        assert_eq!((&kept["done"], &kept["more"]), (&json!(made), &json!(false)));
    }
}

#[tokio::test]
async fn months_are_neither_made_nor_dropped_while_somebody_reads_and_that_is_given_up_in_time() {
    let world = World::new().await;
    let team = world.team(9).await;
    make_past_months(&world, 3).await;
    let (reading, working) = (world.session().await, world.session().await);
    let job = world.job(&team).await;
    reading.run("BEGIN").await.done();
    reading.run("SELECT FROM jobs LIMIT 1").await.done();
    for statement in ["SELECT make_months(3)::text", "SELECT drop_month(1)::text"] {
        // Who comes meanwhile waits no longer than that.
        let (given_up, created) = timeout(Duration::from_secs(60), async {
            tokio::join!(world.call(statement, &[]), async {
                sleep(Duration::from_millis(100)).await;
                working.create_job(team.key, &team.id, 60).await
            })
        })
        .await
        .expect("it is given up");
        assert_eq!(given_up.expect_err("a reader").sqlstate, "55P03", "{statement}");
        created.done();
    }
    assert_eq!(months(&world).await.len(), 6);
    working.get_job(job).await.done();

    reading.run("COMMIT").await.done();
    assert_eq!(world.text("make_months(3)").await, "1");
    assert_eq!(drop_months(&world, 1).await, 2);
    world.check_invariants().await;
}

/// How often the months' tables were looked into, and how many rows were read there.
async fn reads(session: &Session) -> BTreeMap<String, (i64, i64)> {
    let statement =
        "SELECT relname::text, seq_scan + coalesce(idx_scan, 0), seq_tup_read + coalesce(idx_tup_fetch, 0)
                     FROM pg_stat_xact_user_tables WHERE relname ~ '^(jobs|calls)_(\\d|other)'";
    let rows = session.client.query(statement, &[]).await.expect("statistics");
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
}

/// The months' tables that a statement looks into, with the number of rows that it reads there. It leaves nothing
/// behind.
async fn read_by(session: &Session, statement: &str) -> Vec<(String, i64)> {
    session.run("BEGIN").await.done();
    // What the server counts also has what it did not yet report of the transactions before.
    let before = reads(session).await;
    session.call(&format!("SELECT {statement}::text"), &[]).await.done();
    let after = reads(session).await;
    session.run("ROLLBACK").await.done();
    let read = after.into_iter().map(|(table, (scans, rows))| {
        let (scans_before, rows_before) = before.get(&table).copied().unwrap_or_default();
        (table, scans - scans_before, rows - rows_before)
    });
    read.filter(|(_, scans, _)| *scans > 0).map(|(table, _, rows)| (table, rows)).collect()
}

#[tokio::test]
async fn what_is_done_with_one_job_looks_only_into_its_month_also_where_plans_are_cached() {
    let world = World::new().await;
    let team = world.team(9).await;
    make_past_months(&world, 12).await;
    let job = world.job(&team).await;
    let call = world.opened_call(&team, job).await;
    let this = month(&world, 0).await;
    let key = sql_tests::actor(team.key);
    for plans in ["force_generic_plan", "force_custom_plan"] {
        world.run(&format!("SET plan_cache_mode = {plans}")).await.done();
        for statement in [
            format!("begin_call('{key}', '{job}', NULL, NULL, false, '{{}}', 60)"),
            format!("settle_call('{job}', '{call}', 'succeeded', 1, 1, 2, 0.1, 7, '[]', NULL, true)"),
            format!(
                "settle_job_with_call('{job}', '{call}', 'succeeded', 1, 1, 2, 0.1, 7, '[]', NULL, true)"
            ),
            format!("complete_job('{key}', '{job}', 'completed', '{{}}', NULL)"),
            format!("merge_job_metadata('{key}', '{job}', '{{}}')"),
        ] {
            let read = read_by(&world, &statement).await;
            assert!(!read.is_empty(), "{statement}");
            assert!(read.iter().all(|(table, _)| table.ends_with(&this)), "{plans}: {statement}: {read:?}");
        }
    }
    world
        .run("SET plan_cache_mode = force_generic_plan; PREPARE one AS SELECT FROM jobs WHERE job_id = $1")
        .await
        .done();
    let plan = world.client.query(&format!("EXPLAIN EXECUTE one('{job}')"), &[]).await.expect("a plan");
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("Subplans Removed: 15")), "{plan:#?}");
}

#[tokio::test]
async fn opening_a_job_looks_only_into_the_months_in_which_something_can_be_open() {
    let world = World::new().await;
    let team = world.team(9).await;
    make_past_months(&world, 12).await;
    let old: Vec<String> = join_all((3..=12).map(|back| month(&world, -back))).await;
    for overdue in [false, true] {
        if overdue {
            let job = world.job(&team).await;
            let call = world.opened_call(&team, job).await;
            world.job_is_overdue(job).await;
            world.call_is_overdue(call).await;
        }
        for plans in ["force_generic_plan", "force_custom_plan"] {
            world.run(&format!("SET plan_cache_mode = {plans}")).await.done();
            let actor = sql_tests::actor(team.key);
            let statement = format!("create_job('{actor}', '{}', NULL, 'test', '{{}}', 60)", team.id);
            let read = read_by(&world, &statement).await;
            let useless =
                read.iter().filter(|(table, _)| old.iter().any(|month| table.ends_with(month))).count();
            assert_eq!(useless, 0, "{plans}: {read:?}");
        }
    }
}

/// With many jobs, of which few are open.
#[tokio::test]
async fn a_sweep_finds_what_is_overdue_by_index_however_many_jobs_there_are() {
    let world = World::new().await;
    let team = world.team(9).await;
    world
        .run(
            "INSERT INTO jobs (job_id, team_id, terms_id, job_type, metadata, status, completed_at, expires_at)
                 SELECT uuid_v7(), team_id, terms_id, 'test', '{}', 'failed', now(), now()
                 FROM teams, generate_series(1, 20000);
             INSERT INTO calls (call_id, job_id, team_id, model_group, streamed, status, ended_at, deadline)
                 SELECT uuid_v7(), job_id, team_id, 'Chat', false, 'failed', now(), now() FROM jobs;
             ANALYZE",
        )
        .await
        .done();
    let job = world.job(&team).await;
    let call = world.opened_call(&team, job).await;
    world.job_is_overdue(job).await;
    world.call_is_overdue(call).await;
    for plans in ["force_generic_plan", "force_custom_plan"] {
        world.run(&format!("SET plan_cache_mode = {plans}")).await.done();
        for statement in [format!("to_json(sweep_team('{}'))", team.id), "sweep_batch('')".into()] {
            let read = read_by(&world, &statement).await;
            assert!(read.iter().all(|(_, rows)| *rows < 20), "{plans}: {statement}: {read:?}");
        }
    }
}

/// `docs/scaling.md` says of every table what bounds it.
#[tokio::test]
async fn every_table_has_something_that_bounds_it_or_a_reason_why_not() {
    let world = World::new().await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/scaling.md");
    let text = std::fs::read_to_string(path).expect("docs/scaling.md");
    let (_, section) = text.split_once("## What grows, and what removes it").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("its end");
    let named: BTreeSet<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next())
        .flat_map(|names| names.split(", ").map(|name| name.trim_matches('`')))
        .collect();
    let tables = "SELECT relname::text FROM pg_class
                  WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition";
    let rows = world.client.query(tables, &[]).await.expect("the tables");
    let tables: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(tables.iter().map(String::as_str).collect::<BTreeSet<_>>(), named);
}
