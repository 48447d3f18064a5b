//! Requests that change something.
//!
//! Such a request may carry an `Idempotency-Key`, and what the admin changes is written down. Both happen in the SQL statement
//! that makes the change (`claim` and `keep` in `migrations/functions/requests.sql`), so they hold if and only if the change does:
//!
//! * The first answer is kept for 24 hours with its caller and a digest of the request; the same request again gets it back, with
//!   `idempotent-replayed: true`; another request under the same key is refused, and so is a twin of one that is still under way.
//! * A request that is refused before it has an effect keeps nothing.
//! * Neither the key nor anything secret in an answer is stored in the clear: of the key there is a digest, and an answer that shows
//!   a virtual key or a model's words is sealed with a key derived from it ([`Change::seal`]).

use crate::{
    auth::Principal,
    database,
    error::{Code, Error, Result},
    settings,
};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, request::Parts},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, aead::Aead};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use spin_sdk::pg::ParameterValue;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use uuid::Uuid;

/// A statement that changes something: `change!("create_job($2, $3)")`. `$1` is the request, see [`Change::run`].
#[macro_export]
macro_rules! change {
    ($call:literal) => {
        $crate::change::Statement {
            claiming: concat!(
                "WITH claimed AS MATERIALIZED (SELECT claim($1::text::json, 0) AS kept) ",
                "SELECT json_build_object('replayed', kept IS NOT NULL, 'answer', ",
                "CASE WHEN kept IS NULL THEN keep($1::text::json, ",
                $call,
                ") ELSE kept END)::text AS answer FROM claimed"
            ),
            plain: concat!(
                "SELECT json_build_object('replayed', $1::text IS NOT NULL, 'answer', ",
                $call,
                ")::text AS answer"
            ),
        }
    };
}

/// The two texts of a statement that changes something, with the same parameters. PostgreSQL plans a text each time that it is sent.
#[derive(Clone, Copy)]
pub struct Statement {
    /// Claims the request first, and keeps the answer.
    pub claiming: &'static str,
    /// For a request of which nothing is claimed or kept.
    pub plain: &'static str,
}

impl Statement {
    /// The one that a request needs, by what SQL takes as `p_request`.
    pub(crate) fn text(self, request: &ParameterValue) -> &'static str {
        if matches!(request, ParameterValue::DbNull) { self.plain } else { self.claiming }
    }
}

/// The header that makes repeating a request safe.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header that puts a call of OpenAI's API into a job.
pub const JOB_ID: HeaderName = HeaderName::from_static("x-job-id");

/// A request that changes something, with what has to be kept of it.
#[derive(Clone, Debug)]
pub struct Change(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The text of what SQL takes as `p_request`; `None` where there is nothing to claim or to keep.
    request: Option<String>,
    idempotency_key: Option<String>,
    replayed: AtomicBool,
}

/// `p_request` of `claim` and `keep`.
#[derive(Serialize)]
struct Request<'a> {
    caller: String,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<Uuid>,
}

/// The answer of a statement made by [`change!`].
#[derive(Deserialize)]
struct Kept {
    replayed: bool,
    answer: Box<RawValue>,
}

/// What the audit log keeps of a body at most.
const MAX_AUDITED_BYTES: usize = 64 * 1024;

impl Change {
    /// Of a request by `principal`, on `route` of the API.
    pub(crate) fn new(
        principal: &Principal,
        parts: &Parts,
        route: &str,
        request_id: &str,
        body: &[u8],
    ) -> Result<Self> {
        let idempotency_key = idempotency_key(&parts.headers)?;
        let admin = matches!(principal, Principal::Admin);
        let (caller, key_id) = match principal {
            Principal::Admin => ("admin".to_owned(), None),
            Principal::Team(key) => (format!("team:{}", key.team_id), Some(key.key_id)),
            Principal::Nobody => return Err(Error::internal("a change by nobody")),
        };
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let digest = || {
            let mut digest = Sha256::new();
            let job = parts.headers.get(JOB_ID).map_or(&b""[..], |id| id.as_bytes());
            for part in [parts.method.as_str().as_bytes(), path.as_bytes(), job] {
                digest.update(part);
                digest.update([0]);
            }
            digest.update(body);
            hex(&digest.finalize())
        };
        let audited = admin
            .then(|| serde_json::from_slice(body).ok())
            .flatten()
            .filter(|_| body.len() <= MAX_AUDITED_BYTES);
        let request = (admin || idempotency_key.is_some()).then(|| Request {
            caller,
            request_id,
            key_id,
            action: admin.then(|| format!("{} {route}", parts.method)),
            path: admin.then_some(path),
            body: audited,
            key: idempotency_key.as_ref().map(|key| hex(&Sha256::digest(key))),
            digest: idempotency_key.as_ref().map(|_| digest()),
            attempt: idempotency_key.as_ref().map(|_| Uuid::new_v4()),
        });
        let request =
            request.map(|request| serde_json::to_string(&request)).transpose().map_err(Error::internal)?;
        Ok(Self(Arc::new(Inner { request, idempotency_key, replayed: AtomicBool::new(false) })))
    }

    /// Runs a statement made by [`change!`]. `parameters` are those from `$2` on.
    pub async fn run<T: DeserializeOwned>(
        &self,
        statement: Statement,
        parameters: Vec<ParameterValue>,
    ) -> Result<T> {
        let (text, parameters) = self.with(statement, parameters);
        let kept = database::call(text, parameters).await?;
        self.answer(kept)
    }

    /// [`Change::run`] for a statement that changes nothing the second time: see [`database::insist`].
    pub async fn insist<T: DeserializeOwned>(
        &self,
        statement: Statement,
        parameters: Vec<ParameterValue>,
    ) -> Result<T> {
        if self.0.request.is_some() && !self.is_idempotent() {
            // It would be written down twice.
            return self.run(statement, parameters).await;
        }
        let (text, parameters) = self.with(statement, parameters);
        let kept = database::insist(text, parameters).await?;
        self.answer(kept)
    }

    /// The text of a statement that this request needs, and all of its parameters: `parameters` are those from `$2` on.
    pub(crate) fn with(
        &self,
        statement: Statement,
        mut parameters: Vec<ParameterValue>,
    ) -> (&'static str, Vec<ParameterValue>) {
        let request = self.parameter();
        let text = statement.text(&request);
        parameters.insert(0, request);
        (text, parameters)
    }

    fn answer<T: DeserializeOwned>(&self, Kept { replayed, answer }: Kept) -> Result<T> {
        if replayed {
            self.mark_replayed();
        }
        serde_json::from_slice(answer.get().as_bytes())
            .map_err(|error| Error::internal(format!("unexpected answer: {error}")))
    }

    /// The request as a parameter, for statements that call `claim`, `keep` or `release` themselves.
    pub fn parameter(&self) -> ParameterValue {
        database::optional_text(self.0.request.as_ref())
    }

    /// Whether it carries an `Idempotency-Key`.
    pub fn is_idempotent(&self) -> bool {
        self.0.idempotency_key.is_some()
    }

    /// The answer is the one that an earlier request got.
    pub fn mark_replayed(&self) {
        self.0.replayed.store(true, Ordering::Relaxed);
    }

    /// Whether the answer is the one that an earlier request got.
    pub fn is_replayed(&self) -> bool {
        self.0.replayed.load(Ordering::Relaxed)
    }

    /// Encrypts an answer, so that it can be stored: whoever reads the database can't read it, whoever repeats the request can
    /// ([`Change::open`]). `None` without an `Idempotency-Key`.
    pub async fn seal(&self, answer: &[u8]) -> Result<Option<String>> {
        let Some(cipher) = self.cipher().await? else { return Ok(None) };
        let id = Uuid::new_v4();
        let nonce =
            id.as_bytes().first_chunk::<12>().ok_or_else(|| Error::internal("a UUID is too short"))?;
        let sealed =
            cipher.encrypt(nonce.into(), answer).map_err(|_| Error::internal("an answer can't be sealed"))?;
        Ok(Some(STANDARD.encode([&nonce[..], &sealed].concat())))
    }

    /// Decrypts what [`Change::seal`] made of the first answer.
    pub async fn open(&self, sealed: &str) -> Result<Vec<u8>> {
        // Sealed under another LiteLLM master key: then there is no way to tell what the answer was.
        let lost = || {
            Error::new(Code::IdempotencyMismatch, "Idempotency-Key: the first answer can't be read any more")
        };
        let cipher = self.cipher().await?.ok_or_else(lost)?;
        let bytes = STANDARD.decode(sealed).map_err(|_| lost())?;
        let (nonce, sealed) = bytes.split_first_chunk::<12>().ok_or_else(lost)?;
        cipher.decrypt(nonce.into(), sealed).map_err(|_| lost())
    }

    /// Its key comes from the `Idempotency-Key`, which is stored nowhere, and from a secret of the deployment, should that be easy
    /// to guess.
    async fn cipher(&self) -> Result<Option<ChaCha20Poly1305>> {
        let Some(idempotency_key) = &self.0.idempotency_key else { return Ok(None) };
        let mut digest = Sha256::new();
        digest.update(b"llm-jobs answer\0");
        digest.update(settings::text("litellm_master_key").await?);
        digest.update([0]);
        digest.update(idempotency_key);
        let key: [u8; 32] = digest.finalize().into();
        Ok(Some(ChaCha20Poly1305::new(&key.into())))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `Idempotency-Key` of a request: one header of 1 to 255 visible ASCII characters and spaces, or none.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let visible =
        |key: &&str| (1..=255).contains(&key.len()) && key.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    match value.to_str().ok().filter(visible).filter(|_| values.next().is_none()) {
        Some(key) => Ok(Some(key.to_owned())),
        None => {
            Err(Error::invalid("Idempotency-Key", "expected one header of 1 to 255 visible ASCII characters"))
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Change {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.get().cloned().ok_or_else(|| Error::internal("a change by a route that reads"))
    }
}
