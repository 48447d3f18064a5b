//! Bad input is a 400 that names the field and says what is allowed, and changes nothing.

use crate::{
    bad_values::bad_values,
    fixtures::{stored, unique},
};
use api_tests::{Answer, Client, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

/// A route with a body that is good for it.
struct Good {
    client: Client,
    method: Method,
    path: String,
    body: Value,
}

impl Good {
    async fn send(&self, body: impl Into<Vec<u8>>) -> Answer {
        Answer::of(self.client.request(self.method.clone(), &self.path).body(body.into())).await
    }
}

/// What is wrong with the refusals that a test got, all of them together.
#[derive(Default)]
struct Flaws(Vec<String>);

impl Flaws {
    /// Expects a 400 about this field that mentions this.
    fn judge(&mut self, answer: &Answer, field: &str, mention: &str, context: &str) {
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        let named = detail.starts_with(&format!("{field}: ")) && detail.contains(mention);
        if answer.status != 400 || answer.body["code"] != "invalid_request" || !named {
            self.0.push(format!(
                "{context}: expected '{field}: …{mention}…', got {} {:.300}",
                answer.status, answer.text
            ));
        }
    }

    /// Expects a 400, whatever it names.
    fn judge_status(&mut self, answer: &Answer, context: &str) {
        if answer.status != 400 || answer.body["code"] != "invalid_request" {
            self.0.push(format!("{context}: expected a 400, got {} {:.300}", answer.status, answer.text));
        }
    }

    #[track_caller]
    fn none(self) {
        assert!(self.0.is_empty(), "{} flaws:\n{}", self.0.len(), self.0.join("\n"));
    }
}

/// Every POST and PUT route that has fields, with a body for each that is good once all before it were sent.
async fn routes(app: &TestApp) -> Vec<Good> {
    let team = app.team(9).await;
    let (organization, group) = (app.organization().await, app.model_group(&["gpt-4o"]).await);
    let (id, job) = (team.id.clone(), team.job().await);
    let models = json!([{"model_name": "gpt-4o", "priority": 0}]);
    let messages = json!({"messages": [{"role": "user", "content": "hello"}]});
    let of = |client: &Client, path: &str, body| Good {
        client: client.clone(),
        method: if path.ends_with("model-groups") { Method::PUT } else { Method::POST },
        path: path.replace("{team}", &id).replace("{job}", &job),
        body,
    };
    let admins = |path, body| of(&app.admin(), path, body);
    let teams = |path, body| of(&team.client, path, body);
    vec![
        admins("/api/organizations/create", json!({"name": "Test"})),
        admins("/api/model-groups/create", json!({"group_name": unique("g"), "models": models})),
        admins("/api/model-access-groups/create", json!({"group_name": unique("a")})),
        admins(
            "/api/teams/create",
            json!({"organization_id": organization, "team_id": unique("t"), "model_groups": [group]}),
        ),
        admins("/api/teams/{team}/model-groups", json!([group])),
        admins("/api/credits/teams/{team}/add", json!({"credits_amount": 5})),
        teams("/api/credits/teams/{team}/check", json!({})),
        teams("/api/jobs/create", json!({"team_id": id, "job_type": "test"})),
        teams("/api/jobs/{job}/llm-call", messages.clone()),
        teams("/api/jobs/{job}/llm-call-stream", messages),
        teams("/api/jobs/{job}/complete", json!({"status": "completed"})),
    ]
}

/// What may differ after a refused request: nothing but when a key was last used.
async fn without_use_of_keys(app: &TestApp) -> Vec<String> {
    stored(app).await.lines().filter(|line| !line.contains("\\x")).map(str::to_owned).collect()
}

#[tokio::test]
async fn what_is_no_json_is_refused_on_every_route() {
    let app = TestApp::start().await;
    let mut flaws = Flaws::default();
    let routes = routes(&app).await;
    let before = without_use_of_keys(&app).await;
    for good in &routes {
        let whole = good.body.to_string();
        for bad in [
            b"{".to_vec(),
            b"nonsense".to_vec(),
            whole.as_bytes()[..whole.len() - 1].to_vec(),
            format!("{whole}{whole}").into_bytes(),
            format!("{whole}x").into_bytes(),
            b"{\"\xff\": 1}".to_vec(),
            b"{\"a\": \"\x00\"}".to_vec(),
            b"{'a': 1}".to_vec(),
            b"{\"a\": NaN}".to_vec(),
            vec![b'['; 100_000],
        ] {
            let answer = good.send(bad.clone()).await;
            let context = format!("{} {}", good.path, String::from_utf8_lossy(&bad[..bad.len().min(50)]));
            flaws.judge_status(&answer, &context);
        }
    }
    flaws.none();
    assert_eq!(without_use_of_keys(&app).await, before);
}

#[tokio::test]
async fn another_kind_of_json_than_expected_is_refused_on_every_route() {
    let app = TestApp::start().await;
    let mut flaws = Flaws::default();
    let routes = routes(&app).await;
    let before = without_use_of_keys(&app).await;
    for good in &routes {
        let other = if good.body.is_array() { "{}" } else { "[]" };
        for bad in [other, "\"text\"", "1", "true", "[[]]"] {
            let answer = good.send(bad).await;
            flaws.judge_status(&answer, &format!("{} {bad}", good.path));
        }
    }
    flaws.none();
    assert_eq!(without_use_of_keys(&app).await, before);
}

#[tokio::test]
async fn a_list_of_an_objects_values_is_no_object() {
    let app = TestApp::start().await;
    let mut flaws = Flaws::default();
    let routes = routes(&app).await;
    let before = without_use_of_keys(&app).await;
    for good in &routes {
        let values = match good.path.rsplit('/').nth(1).unwrap_or_default() {
            "organizations" => json!([null, "Test", {}, null]),
            "model-groups" => json!(["G", null, null, [{"model_name": "gpt-4o", "priority": 0}], {}]),
            "model-access-groups" => json!(["A", null, null, [], null]),
            "jobs" => json!([good.body["team_id"], null, "test", {}, null]),
            _ if good.path.ends_with("/add") => json!([5, null, null, null, {}]),
            _ if good.path.ends_with("/check") => json!([5]),
            _ if good.path.ends_with("/complete") => json!(["completed", {}, null]),
            _ => continue,
        };
        flaws.judge(&good.send(values.to_string()).await, "body", "", &good.path);
    }
    let models = json!({"group_name": "G", "models": [["gpt-4o", 0, {}]]});
    let answer = app.admin().post("/api/model-groups/create", models).await;
    flaws.judge(&answer, "models[0]", "", "a model");
    flaws.none();
    assert_eq!(without_use_of_keys(&app).await, before);
}

#[tokio::test]
async fn an_unknown_field_is_named_on_every_route() {
    let app = TestApp::start().await;
    let mut flaws = Flaws::default();
    let routes = routes(&app).await;
    let before = without_use_of_keys(&app).await;
    for good in routes.iter().filter(|good| good.body.is_object()) {
        for typo in ["nmae", "metdata", "x y"] {
            let mut body = good.body.clone();
            body[typo] = json!(1);
            flaws.judge(&good.send(body.to_string()).await, typo, "unknown", &good.path);
        }
    }
    flaws.none();
    assert_eq!(without_use_of_keys(&app).await, before);
}

#[tokio::test]
async fn a_field_that_is_missing_or_given_twice_is_named() {
    let app = TestApp::start().await;
    let mut flaws = Flaws::default();
    let routes = routes(&app).await;
    let before = without_use_of_keys(&app).await;
    for good in routes.iter().filter(|good| good.body.is_object()) {
        let fields = good.body.as_object().expect("an object");
        for (name, value) in fields {
            let required =
                !matches!(name.as_str(), "team_id" | "model_groups") || good.path == "/api/jobs/create";
            if required {
                let mut body = good.body.clone();
                body.as_object_mut().expect("an object").remove(name);
                flaws.judge(&good.send(body.to_string()).await, name, "required", &good.path);
                body[name] = Value::Null;
                flaws.judge(&good.send(body.to_string()).await, name, "", &format!("{} null", good.path));
            }
            let text = good.body.to_string();
            let twice = format!("{},\"{name}\":{value}}}", &text[..text.len() - 1]);
            let answer = good.send(twice).await;
            flaws.judge_status(&answer, &format!("{}: {name} twice", good.path));
            if !answer.text.contains(name) {
                flaws.0.push(format!("{}: {name} twice is not named", good.path));
            }
        }
    }
    let empty = app.admin().request(Method::POST, "/api/organizations/create");
    flaws.judge(&Answer::of(empty).await, "name", "required", "an empty body");
    flaws.none();
    assert_eq!(without_use_of_keys(&app).await, before);
}

#[tokio::test]
async fn a_route_that_has_no_fields_refuses_any() {
    let app = TestApp::start().await;
    let team = app.team(1).await;
    let mut flaws = Flaws::default();
    for verb in ["resume", "suspend"] {
        let path = format!("/api/teams/{}/{verb}", team.id);
        let put = |body: &'static str| Answer::of(app.admin().request(Method::PUT, &path).body(body));
        let before = stored(&app).await;
        flaws.judge(&put(r#"{"until": "2027-01-01"}"#).await, "until", "unknown", verb);
        flaws.judge_status(&put("[]").await, verb);
        flaws.judge_status(&put("{").await, verb);
        if stored(&app).await != before {
            flaws.0.push(format!("{verb}: a refused request changed something"));
        }
        assert_eq!(put("").await.status, 200);
        assert_eq!(put("{}").await.status, 200);
    }
    flaws.none();
}

#[tokio::test]
async fn a_value_that_is_not_allowed_is_refused_with_what_is() {
    let app = TestApp::start().await;
    let mut flaws = Flaws::default();
    let routes = routes(&app).await;
    let before = without_use_of_keys(&app).await;
    let mut tried = 0;
    for good in routes.iter().filter(|good| good.body.is_object()) {
        for (field, value, mention) in bad_values(&good.path) {
            let mut body = good.body.clone();
            body[field.split(['[', '.']).next().unwrap_or_default()] = value.clone();
            let context = format!("{} {:.60}", good.path, value.to_string());
            flaws.judge(&good.send(body.to_string()).await, field, mention, &context);
            tried += 1;
        }
    }
    assert!(tried > 150, "{tried}");
    flaws.none();
    assert_eq!(without_use_of_keys(&app).await, before);
    for good in &routes {
        assert_eq!(good.send(good.body.to_string()).await.status, 200, "{} is no good example", good.path);
    }
}

#[tokio::test]
async fn a_query_parameter_that_is_wrong_unknown_or_given_twice_is_named() {
    let app = TestApp::start().await;
    let mut flaws = Flaws::default();
    let team = app.team(1).await;
    let lists = [
        "/api/teams".to_owned(),
        "/api/model-groups".into(),
        format!("/api/teams/{}/jobs", team.id),
        format!("/api/credits/teams/{}/transactions", team.id),
    ];
    for list in lists {
        for (query, field, mention) in [
            ("limit=0", "limit", "1 to 1000"),
            ("limit=1001", "limit", "1 to 1000"),
            ("limit=", "limit", "1 to 1000"),
            ("limit=ten", "limit", "1 to 1000"),
            ("limit=1.0", "limit", "1 to 1000"),
            ("limit=5&limit=5", "limit", "more than once"),
            ("offset=-1", "offset", "0 to"),
            ("offset=9223372036854775808", "offset", "0 to"),
            ("offset=1&offset=2", "offset", "more than once"),
            ("page=1", "page", "unknown"),
        ] {
            let answer = app.admin().get(&format!("{list}?{query}")).await;
            flaws.judge(&answer, field, mention, &format!("{list}?{query}"));
        }
    }
    let jobs = format!("/api/teams/{}/jobs?status=", team.id);
    let all = "pending, in_progress, completed, failed, cancelled, expired";
    for status in ["done", "", "pending,failed", "%00"] {
        flaws.judge(&app.admin().get(&format!("{jobs}{status}")).await, "status", all, status);
    }
    let check = format!("/api/credits/teams/{}/check", team.id);
    for (query, mention) in
        [("credits_needed=x", "0 to"), ("credits_needed=1&credits_needed=1", "more than once")]
    {
        let answer = app.admin().post(&format!("{check}?{query}"), json!({})).await;
        flaws.judge(&answer, "credits_needed", mention, query);
    }
    let answer = app.admin().get("/api/model-groups/any/resolve").await;
    flaws.judge(&answer, "team_id", "required", "resolve");
    flaws.none();
}

#[tokio::test]
async fn an_id_in_a_path_that_can_not_be_one_is_refused() {
    let app = TestApp::start().await;
    for route in
        ["/api/teams/{}", "/api/organizations/{}", "/api/model-groups/{}", "/api/credits/teams/{}/balance"]
    {
        for id in ["a%20b", "%00", "a%2Fb", "%FF", &"x".repeat(129), "%C3%A9"] {
            let answer = app.admin().get(&route.replace("{}", id)).await;
            let refused = matches!(answer.status.as_u16(), 400 | 404) && answer.body["detail"].is_string();
            assert!(refused, "{route} {id}: {} {}", answer.status, answer.text);
        }
    }
}
