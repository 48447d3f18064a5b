//! Requests that change something.
//!
//! Such a request may carry an `Idempotency-Key`, and what the admin changes is written down ([`crate::store::idempotency`]):
//!
//! * The first answer is kept for 24 hours with its caller and a digest of the request; the same request again gets it back, with
//!   `idempotent-replayed: true`; another request under the same key is refused, and so is a twin of one that is still under way.
//! * A request that is refused before it has an effect keeps nothing.
//! * Neither the key nor anything secret in an answer is stored in the clear: of the key there is a digest, and an answer that shows
//!   a virtual key or a model's words is sealed with a key derived from it.

use super::{access::Authenticated, caller::Caller};
use crate::{
    error::{Code, Error, Result},
    platform::settings,
    store::{Function, idempotency::Request},
    values::KeyId,
};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, request::Parts},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit, aead::Aead};
use hkdf::Hkdf;
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use uuid::Uuid;

/// The header that makes repeating a request safe.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header that puts a call of OpenAI's API into a job.
pub const JOB_ID: HeaderName = HeaderName::from_static("x-job-id");

/// A request that changes something, with what has to be kept of it.
#[derive(Clone, Debug)]
pub struct Mutation(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    request: Request,
    idempotency_key: Option<SecretString>,
    replayed: AtomicBool,
}

/// `p_request` of `claim` and `keep`.
#[serde_with::skip_serializing_none]
#[derive(Serialize)]
struct RequestJson<'a> {
    caller: String,
    request_id: &'a str,
    key_id: Option<KeyId>,
    action: Option<String>,
    path: Option<&'a str>,
    body: Option<&'a RawValue>,
    key: Option<String>,
    digest: Option<String>,
    attempt: Option<Uuid>,
}

/// What the audit log keeps of a body at most.
const MAX_AUDITED_BYTES: usize = 64 * 1024;

impl Mutation {
    /// Of a request by `caller`, on `route` of the API.
    pub(crate) fn new(
        caller: &Caller,
        parts: &Parts,
        route: &str,
        request_id: &str,
        body: &[u8],
    ) -> Result<Self> {
        let idempotency_key = idempotency_key(&parts.headers)?;
        let (caller, key_id) = match caller {
            Caller::Admin => ("admin".to_owned(), None),
            Caller::Team(key) => (format!("team:{}", key.team_id), Some(key.key_id)),
        };
        let admin = key_id.is_none();
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let audited = admin
            .then(|| serde_json::from_slice(body).ok())
            .flatten()
            .filter(|_| body.len() <= MAX_AUDITED_BYTES);
        let request = (admin || idempotency_key.is_some()).then(|| RequestJson {
            caller,
            request_id,
            key_id,
            action: admin.then(|| format!("{} {route}", parts.method)),
            path: admin.then_some(path),
            body: audited,
            key: idempotency_key.as_ref().map(|key| hex::encode(Sha256::digest(key))),
            digest: idempotency_key.as_ref().map(|_| digest(parts, path, body)),
            attempt: idempotency_key.as_ref().map(|_| Uuid::new_v4()),
        });
        let request =
            request.map(|request| serde_json::to_string(&request)).transpose().map_err(Error::internal)?;
        Ok(Self(Arc::new(Inner {
            request: Request::new(request),
            idempotency_key: idempotency_key.map(SecretString::from),
            replayed: AtomicBool::new(false),
        })))
    }

    /// Makes a change that is one statement.
    pub async fn run<T: DeserializeOwned>(&self, function: Function) -> Result<T> {
        let changed = self.0.request.run(function).await?;
        if changed.replayed {
            self.mark_replayed();
        }
        changed.answer()
    }

    /// [`Mutation::run`] for a function that changes nothing the second time. Not sent again where it would be written down twice.
    pub async fn run_repeatable<T: DeserializeOwned>(&self, function: Function) -> Result<T> {
        let once = self.0.request.is_some() && !self.is_idempotent();
        self.run(if once { function } else { function.repeatable() }).await
    }

    /// The first of two statements. Of a repeat: what the first request answered, with what was sealed of it.
    pub async fn begin<A: DeserializeOwned, B: DeserializeOwned>(
        &self,
        function: Function,
    ) -> Result<Beginning<A, B>> {
        let claimed = self.0.request.begin(function).await?;
        let Some(kept) = &claimed.kept else { return claimed.begun().map(Beginning::New) };
        self.mark_replayed();
        let sealed =
            kept.sealed.as_ref().ok_or_else(|| Error::internal("a kept answer without its secret"))?;
        Ok(Beginning::Repeat(kept.answer()?, self.unseal(sealed).await?))
    }

    /// The second of two statements, which keeps its answer and `secret`, sealed.
    pub async fn finish<A: DeserializeOwned>(&self, function: Function, secret: &[u8]) -> Result<A> {
        let sealed = self.seal(secret).await?;
        self.0.request.finish(function, sealed).await?.answer()
    }

    /// In place of [`Mutation::finish`] where the work came to nothing: `undo` takes back what began it.
    pub async fn release(&self, undo: Function) -> Result<()> {
        self.0.request.release(undo).await
    }

    /// What SQL is told of the request, for a second statement that may be sent when the request is over.
    pub(crate) fn request(&self) -> Request {
        self.0.request.clone()
    }

    /// Whether it carries an `Idempotency-Key`.
    pub fn is_idempotent(&self) -> bool {
        self.0.idempotency_key.is_some()
    }

    fn mark_replayed(&self) {
        self.0.replayed.store(true, Ordering::Relaxed);
    }

    /// Whether the answer is the one that an earlier request got.
    pub fn is_replayed(&self) -> bool {
        self.0.replayed.load(Ordering::Relaxed)
    }

    /// Encrypts an answer, so that it can be stored: whoever reads the database can't read it, whoever repeats the request can. `None`
    /// without an `Idempotency-Key`.
    pub(crate) async fn seal(&self, answer: &[u8]) -> Result<Option<String>> {
        let Some(cipher) = self.cipher().await? else { return Ok(None) };
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).map_err(Error::internal)?;
        let sealed = cipher
            .encrypt(&nonce.into(), answer)
            .map_err(|_| Error::internal("an answer can't be sealed"))?;
        Ok(Some(STANDARD.encode([&nonce[..], &sealed].concat())))
    }

    /// Decrypts what [`Mutation::seal`] made of the first answer.
    async fn unseal(&self, sealed: &str) -> Result<Vec<u8>> {
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
        let secret = settings::secret("litellm_master_key").await?;
        let derivation = Hkdf::<Sha256>::new(
            Some(secret.expose_secret().as_bytes()),
            idempotency_key.expose_secret().as_bytes(),
        );
        let mut key = Key::default();
        derivation.expand(b"llm-jobs answer", &mut key).map_err(Error::internal)?;
        Ok(Some(ChaCha20Poly1305::new(&key)))
    }
}

/// What [`Mutation::begin`] answers.
pub enum Beginning<A, B> {
    /// The work is to be done.
    New(B),
    /// The same request was answered before: the answer, and the secret that belongs to it.
    Repeat(A, Vec<u8>),
}

/// What a request is, so that another one under its key is noticed: the hex of a SHA-256.
fn digest(parts: &Parts, path: &str, body: &[u8]) -> String {
    let mut digest = Sha256::new();
    let job = parts.headers.get(JOB_ID).map_or(&b""[..], |id| id.as_bytes());
    for part in [parts.method.as_str().as_bytes(), path.as_bytes(), job] {
        digest.update(part);
        digest.update([0]);
    }
    digest.update(body);
    hex::encode(digest.finalize())
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

impl<K: Authenticated> FromRequestParts<K> for Mutation {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &K) -> Result<Self> {
        parts.extensions.get().cloned().ok_or_else(|| Error::internal("a change by a route that reads"))
    }
}
