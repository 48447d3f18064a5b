//! The connection to PostgreSQL breaks off at any byte of a statement or of its answer.

use crate::asking::{
    ask, assert_repeats, assert_unavailable, call, complete, create_job, is_charged, let_deadlines_pass,
    messages, places, post,
};
use api_tests::{Answer, Team, eventually};
use faults::{Application, Direction, Setup};
use futures::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

const DIRECTIONS: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

const JOBS: &str = "SELECT count(*) FROM jobs";
const CALLS: &str = "SELECT count(*) FROM calls WHERE status = 'succeeded'";
const DEDUCTIONS: &str = "SELECT count(*) FROM credit_transactions WHERE transaction_type = 'deduction'";
const ADDITIONS: &str = "SELECT count(*) FROM credit_transactions WHERE change = 7";
const REFUNDS: &str = "SELECT count(*) FROM credit_transactions WHERE transaction_type = 'refund'";
const LATE_COSTS: &str = "SELECT count(*) FROM credit_transactions WHERE call_id IS NOT NULL";
const UNSETTLED: &str = "SELECT count(*) FROM calls WHERE settled_at IS NULL";

/// How many accounts differ from their ledger.
const UNBALANCED: &str = "SELECT count(*) FROM credit_accounts a WHERE allocated - used <> (
    SELECT coalesce(sum(change), 0) FROM credit_transactions x WHERE x.team_id = a.team_id)";

/// One that looks every key up once, so that what breaks off is the request's own statement, and a team.
async fn app() -> (Application, Team) {
    let variables = vec![("auth_cache_seconds", "3600".to_owned())];
    let app = Application::start_with(Setup { variables, ..Setup::default() }).await;
    let team = app.team(10_000).await;
    team.balance().await;
    (app, team)
}

fn key() -> String {
    Uuid::new_v4().to_string()
}

async fn answer_to(request: RequestBuilder, context: &str) -> Answer {
    ask(request).await.unwrap_or_else(|| panic!("{context}: no answer"))
}

/// Makes a request again and again, each time with a connection that breaks off at another byte. Nobody notices: it is
/// answered, and has taken effect once. `effects` is SQL that counts how often it has. At about `number` bytes each
/// way.
async fn nobody_notices(
    app: &Application,
    what: &str,
    number: u64,
    effects: &str,
    request: impl AsyncFn() -> RequestBuilder,
) {
    for direction in DIRECTIONS {
        let uncut = request().await;
        let before = app.to_database.passed(direction);
        answer_to(uncut, what).await.ok();
        let length = app.to_database.passed(direction) - before;
        let cuts = app.to_database.cuts();
        for at in places(length, number) {
            let context = format!("{what}, {direction:?}, cut after {at} of {length} bytes");
            let (request, count) = (request().await, app.number(effects).await);
            app.to_database.cut_once_after(direction, at);
            let answer = answer_to(request, &context).await;
            app.to_database.cut_no_more();
            assert_eq!(answer.status, 200, "{context}: {}", answer.text);
            let streamed = answer.header("content-type") == Some("text/event-stream");
            assert!(!streamed || answer.text.ends_with("data: [DONE]\n\n"), "{context}: {}", answer.text);
            assert_eq!(app.number(effects).await - count, 1, "{context}");
        }
        assert!(app.to_database.cuts() - cuts > number / 2, "{what}, {direction:?}: it was not cut");
    }
}

#[tokio::test]
async fn jobs_are_opened_and_charged_once_and_nobody_notices_that_a_connection_breaks() {
    let (app, team) = app().await;
    nobody_notices(&app, "create", 25, JOBS, async || create_job(&team, None)).await;
    nobody_notices(&app, "complete", 25, DEDUCTIONS, async || complete(&team, &team.job().await, None)).await;
    let (jobs, charged) = (app.number(JOBS).await, app.number(DEDUCTIONS).await);
    let balance = team.balance().await;
    assert_eq!(
        (&balance["credits_reserved"], &balance["credits_used"]),
        (&json!(jobs - charged), &json!(charged))
    );
    app.recovers().await;
}

/// The key is revoked between a statement whose answer is lost and its repeat, which is refused for that: nobody is
/// told that nothing has happened.
#[tokio::test]
async fn a_repeat_that_is_refused_does_not_hide_that_the_first_one_was_carried_out() {
    let (app, _) = app().await;
    let revoking = "ALTER FUNCTION create_job RENAME TO kept;
        CREATE FUNCTION create_job(p_actor text, p_team_id text, p_user_id text, p_job_type text, p_metadata json,
                                   p_lifetime_seconds integer, p_job_id uuid, p_limits jsonb) RETURNS json
                                   LANGUAGE plpgsql SECURITY DEFINER AS $$
        DECLARE
            v_answer json := kept(p_actor, p_team_id, p_user_id, p_job_type, p_metadata, p_lifetime_seconds, p_job_id,
                                  p_limits);
        BEGIN
            UPDATE virtual_keys SET revoked_at = now() WHERE key_id = substr(p_actor, 5)::uuid;
            RETURN v_answer;
        END $$";
    app.database.connect().await.batch_execute(revoking).await.expect("made revoking");
    let (mut hidden, mut refused) = (0, 0);
    for at in (20..900).step_by(20) {
        let team = app.team(1).await;
        team.balance().await;
        let request = create_job(&team, None);
        app.to_database.cut_once_after(Direction::ToClient, at);
        let answer = answer_to(request, "cut").await;
        app.to_database.cut_no_more();
        let opened = app.number(&format!("SELECT count(*) FROM jobs WHERE team_id = '{}'", team.id)).await;
        match answer.status.as_u16() {
            200 => assert_eq!(opened, 1, "cut after {at} bytes"),
            503 => hidden += opened,
            status => {
                assert_eq!((status, opened), (401, 0), "cut after {at} bytes: {}", answer.text);
                refused += 1;
            }
        }
    }
    assert!(hidden > 0, "no answer was lost ({refused} were refused)");
}

#[tokio::test]
async fn calls_and_streams_are_counted_once_and_nobody_notices_that_a_connection_breaks() {
    let (app, team) = app().await;
    let job = team.job().await;
    nobody_notices(&app, "call", 20, CALLS, async || call(&team, &job, "hello", None)).await;
    let path = format!("/api/jobs/{job}/llm-call-stream");
    nobody_notices(&app, "stream", 20, CALLS, async || post(&team.client, &path, &messages("hello"), None))
        .await;
    let calls = app.number(CALLS).await;
    assert_eq!(team.read(&job).await["total_calls"], json!(calls), "no call was opened beside them");
    is_charged(&team, &job, "the job of all").await;
    app.recovers().await;
}

#[tokio::test]
async fn jobs_of_one_call_are_charged_once_and_nobody_notices_that_a_connection_breaks() {
    let (app, team) = app().await;
    let body = json!({"job_type": "test", "messages": messages("hello")["messages"]});
    for path in ["/api/jobs/create-and-call", "/api/jobs/create-and-call-stream"] {
        nobody_notices(&app, path, 10, DEDUCTIONS, async || post(&team.client, path, &body, None)).await;
    }
    let group = team.client.get("/v1/models").await.ok()["data"][0]["id"].clone();
    let body = json!({"model": group, "messages": messages("hello")["messages"]});
    let path = "/v1/chat/completions";
    nobody_notices(&app, path, 10, DEDUCTIONS, async || post(&team.client, path, &body, None)).await;
    let charged = app.number(DEDUCTIONS).await;
    assert_eq!(app.number(JOBS).await, charged, "no job was opened beside them");
    app.recovers().await;
}

/// Makes a request that is not sent again by itself, each time with a connection that breaks off at another byte: it is
/// refused or answered, and with its repeat, under the same `Idempotency-Key`, it has taken effect once. `body` makes
/// another one each time.
async fn takes_effect_once(app: &Application, path: &str, effects: &str, body: impl AsyncFn() -> Value) {
    let admin = app.admin();
    for direction in DIRECTIONS {
        let uncut = post(&admin, path, &body().await, Some(&key()));
        let before = app.to_database.passed(direction);
        answer_to(uncut, "uncut").await.ok();
        let length = app.to_database.passed(direction) - before;
        let mut refused = 0;
        for at in places(length, 40) {
            let context = format!("{path}, {direction:?}, cut after {at} of {length} bytes");
            let (key, body, count) = (key(), body().await, app.number(effects).await);
            app.to_database.cut_once_after(direction, at);
            let first = answer_to(post(&admin, path, &body, Some(&key)), &context).await;
            app.to_database.cut_no_more();
            refused += i32::from(is_refused(app, &first, effects, count, &context).await);
            let repeat = answer_to(post(&admin, path, &body, Some(&key)), &context).await;
            assert_repeats(&repeat, &first, &context);
            assert_eq!(app.number(effects).await - count, 1, "{context}");
            assert_eq!(app.number(UNBALANCED).await, 0, "{context}");
        }
        assert!(refused > 0, "{direction:?}: no cut was noticed");
    }
}

#[tokio::test]
async fn credits_are_added_once_by_a_request_and_its_repeat_wherever_the_connection_breaks() {
    let (app, team) = app().await;
    let path = format!("/api/credits/teams/{}/add", team.id);
    takes_effect_once(&app, &path, ADDITIONS, async || json!({"credits": 7})).await;
    let times = app.number(ADDITIONS).await;
    assert_eq!(team.balance().await["credits_allocated"], json!(10_000 + 7 * times));
    app.recovers().await;
}

#[tokio::test]
async fn credits_are_refunded_once_by_a_request_and_its_repeat_wherever_the_connection_breaks() {
    let (app, team) = app().await;
    let path = format!("/api/credits/teams/{}/refund", team.id);
    takes_effect_once(&app, &path, REFUNDS, async || {
        let job = team.job().await;
        is_charged(&team, &job, "before its refund").await;
        json!({"job_id": job, "reason": "a test"})
    })
    .await;
    let (charged, refunded) = (app.number(DEDUCTIONS).await, app.number(REFUNDS).await);
    assert_eq!((team.balance().await["credits_used"].clone(), charged), (json!(0), refunded));
    app.recovers().await;
}

/// Costs are found by the upkeep, whose statements are not sent again: what was lost is found by a later run.
#[tokio::test]
async fn a_cost_that_comes_late_is_charged_once_wherever_the_connection_breaks() {
    let (app, _) = app().await;
    let group = app.admin().new_model_group(&["unpriced"]).await;
    let fields = json!({"credits_allocated": 10_000, "billing_mode": "consumption_usd", "credits_per_dollar": 1000,
                        "credits_per_1k_tokens_unpriced": 0, "model_groups": [group]});
    let team = app.admin().new_team(fields).await;
    let admin = app.admin();
    let upkeep = || post(&admin, "/api/upkeep", &json!({}), None);
    let due = async || {
        let due = "UPDATE calls SET cost_check_at = now() WHERE cost_check_at IS NOT NULL";
        app.database.connect().await.batch_execute(due).await.expect("asked again");
    };
    let charged_without = async || {
        let job = team.job().await;
        team.call(&job, "hello").await.ok();
        is_charged(&team, &job, "before its cost is known").await;
        app.litellm.price_log("unpriced", 0.001);
        due().await;
        job
    };
    for direction in DIRECTIONS {
        charged_without().await;
        let before = app.to_database.passed(direction);
        assert_eq!(answer_to(upkeep(), "uncut").await.ok()["steps"]["costs"]["done"], 1);
        let length = app.to_database.passed(direction) - before;
        let mut missed = 0;
        for at in places(length, 25) {
            let context = format!("{direction:?}, cut after {at} of {length} bytes");
            let job = charged_without().await;
            let count = app.number(LATE_COSTS).await;
            app.to_database.cut_once_after(direction, at);
            answer_to(upkeep(), &context).await;
            app.to_database.cut_no_more();
            let found = app.number(LATE_COSTS).await - count;
            missed += i32::from(found == 0);
            due().await;
            answer_to(upkeep(), &context).await.ok();
            assert_eq!(app.number(LATE_COSTS).await - count, 1, "{context}: {found} before");
            assert_eq!(app.number(UNBALANCED).await, 0, "{context}");
            let job = team.read(&job).await;
            let cost = job["total_cost_usd"].as_f64().expect("a cost");
            let told = (&job["credits_charged"], &job["charge_is_final"]);
            assert_eq!(told, (&json!((cost * 1000.0).round() as i64), &json!(true)), "{context}: {job}");
        }
        assert!(missed > 0, "{direction:?}: no cut was noticed");
    }
    app.recovers().await;
}

/// A reader has left, and the job was completed: what the call cost is read from LiteLLM's log and charged later, by a
/// statement that is sent again.
#[tokio::test]
async fn what_a_stream_cost_whose_reader_left_is_charged_once_wherever_the_connection_breaks() {
    let (app, _) = app().await;
    let group = app.admin().new_model_group(&["expensive"]).await;
    let fields = json!({"credits_allocated": 10_000, "billing_mode": "consumption_usd", "credits_per_dollar": 1000,
                        "model_groups": [group]});
    let team = app.admin().new_team(fields).await;
    let left_and_completed = async || {
        let job = team.job().await;
        let path = format!("/api/jobs/{job}/llm-call-stream");
        let mut stream = team.client.stream(&path, messages("[[chunks=50]][[delay_ms=20]] hello")).await;
        assert!(stream.next().await.is_some(), "a first event");
        let completed = team.complete(&job, "completed").await.ok();
        assert_eq!(completed["costs"]["charge_is_final"], false, "{completed}");
        drop(stream);
        // What is known when the host notices that is written at once.
        eventually("a first settling", async || {
            (app.number("SELECT count(*) FROM calls WHERE settled_at IS NULL AND settlements = 0").await == 0)
                .then_some(())
        })
        .await;
        job
    };
    let settled = async || {
        eventually("a settled call", async || (app.number(UNSETTLED).await == 0).then_some(())).await;
    };
    for direction in DIRECTIONS {
        left_and_completed().await;
        let before = app.to_database.passed(direction);
        settled().await;
        let length = app.to_database.passed(direction) - before;
        assert!(length > 0, "{direction:?}: it was settled before");
        for at in places(length, 12) {
            let context = format!("{direction:?}, cut after {at} of {length} bytes");
            let count = app.number(LATE_COSTS).await;
            let job = left_and_completed().await;
            app.to_database.cut_once_after(direction, at);
            settled().await;
            app.to_database.cut_no_more();
            assert_eq!(app.number(LATE_COSTS).await - count, 1, "{context}");
            assert_eq!(app.number(UNBALANCED).await, 0, "{context}");
            let job = team.read(&job).await;
            let cost = job["total_cost_usd"].as_f64().expect("a cost");
            assert_eq!(job["credits_charged"], json!((cost * 1000.0).ceil() as i64), "{context}: {job}");
        }
    }
    app.recovers().await;
}

/// Whether the answer says to come again, whatever has happened; else it is a success, and has taken effect.
async fn is_refused(app: &Application, answer: &Answer, effects: &str, before: i64, context: &str) -> bool {
    let effect = app.number(effects).await - before;
    if answer.status == 200 {
        assert_eq!(effect, 1, "{context}: {}", answer.text);
        return false;
    }
    assert_unavailable(answer, context);
    assert!((0..=1).contains(&effect), "{context}: {effect} effects");
    true
}

#[tokio::test]
async fn where_every_connection_breaks_it_is_a_503_and_with_its_repeat_it_has_taken_effect_once() {
    let (app, team) = app().await;
    let (admin, path) = (app.admin(), format!("/api/credits/teams/{}/add", team.id));
    let (mut called, mut refusals) = (vec![], [0; 4]);
    for direction in DIRECTIONS {
        // With what it takes to connect.
        app.to_database.cut();
        let before = app.to_database.passed(direction);
        answer_to(create_job(&team, None), "uncut").await.ok();
        let length = app.to_database.passed(direction) - before;
        for at in places(length, 7) {
            let context = format!("{direction:?}, each cut after {at} bytes");
            let (ended, job) = (team.job().await, team.job().await);
            let keys = [(); 4].map(|()| key());
            let requests = || {
                [
                    create_job(&team, Some(&keys[0])),
                    complete(&team, &ended, Some(&keys[1])),
                    post(&admin, &path, &json!({"credits": 7}), Some(&keys[2])),
                    call(&team, &job, "hello", Some(&keys[3])),
                ]
            };
            let effects = [JOBS, DEDUCTIONS, ADDITIONS];
            let counts = join_all(effects.map(|effects| app.number(effects))).await;
            app.to_database.cut_each_after(direction, at);
            let answers = join_all(requests().map(|request| answer_to(request, &context))).await;
            app.to_database.cut_no_more();
            let repeats = join_all(requests().map(|request| answer_to(request, &context))).await;
            for (place, (effects, count)) in effects.iter().zip(counts).enumerate() {
                let context = format!("{context}, {effects}");
                let refused = is_refused(&app, &answers[place], effects, count, &context).await;
                refusals[place] += i32::from(refused);
                assert_repeats(&repeats[place], &answers[place], &context);
                assert_eq!(app.number(effects).await - count, 1, "{context}");
            }
            if answers[3].status != 200 {
                assert_unavailable(&answers[3], &context);
                refusals[3] += 1;
            }
            called.push((context, job, keys[3].clone(), answers[3].clone()));
        }
    }
    assert!(refusals.iter().all(|refusals| *refusals > 0), "{refusals:?}");
    // Of a call that was answered, what became of it is written once that is possible.
    for (context, job, key, first) in called.iter().filter(|(_, _, _, first)| first.status == 200) {
        let again = until_repeated(&team, job, key, context).await;
        assert_eq!(again, first.body, "{context}");
    }
    // Of one that was not, nobody may know that it was opened: it ends by its deadline, and then its repeat is another
    // one.
    let_deadlines_pass(&app).await;
    for (context, job, key, _) in called {
        until_repeated(&team, &job, &key, &context).await;
        assert_eq!(team.read(&job).await["successful_calls"], 1, "{context}");
        is_charged(&team, &job, &context).await;
    }
    app.recovers().await;
}

async fn until_repeated(team: &Team, job: &str, key: &str, context: &str) -> Value {
    eventually(&format!("{context}: a repeat that works"), async || {
        let repeat = answer_to(call(team, job, "hello", Some(key)), context).await;
        assert!([200, 409].contains(&repeat.status.as_u16()), "{context}: {}", repeat.text);
        (repeat.status == 200).then_some(repeat.body)
    })
    .await
}

#[tokio::test]
async fn what_is_read_is_whole_or_a_503_wherever_the_connection_breaks() {
    // Every request looks its key up.
    let variables = vec![("auth_cache_seconds", "0".to_owned())];
    let app = Application::start_with(Setup { variables, ..Setup::default() }).await;
    let team = app.team(10).await;
    let job = team.job().await;
    team.call(&job, "hello").await.ok();
    let request = || team.client.request(Method::GET, &format!("/api/jobs/{job}"));
    let whole = answer_to(request(), "uncut").await.ok();
    for direction in DIRECTIONS {
        let before = app.to_database.passed(direction);
        answer_to(request(), "uncut").await.ok();
        let length = app.to_database.passed(direction) - before;
        let mut refused = 0;
        for at in places(length, 40) {
            let context = format!("{direction:?}, cut after {at} of {length} bytes");
            app.to_database.cut_once_after(direction, at);
            let answer = answer_to(request(), &context).await;
            app.to_database.cut_no_more();
            if answer.status == 200 {
                assert_eq!(answer.body, whole, "{context}");
            } else {
                assert_unavailable(&answer, &context);
                refused += 1;
            }
        }
        assert!(refused > 0, "{direction:?}: no cut was noticed");
    }
    app.recovers().await;
}
