//! Requests that change something.
//!
//! Such a request may carry an `Idempotency-Key`, and the changes that the admin makes are written to the audit log
//! ([`crate::store::idempotency`]):
//!
//! * The first answer is stored for 24 hours, with its caller and a digest of the request. A retry of the same request
//!   gets it again, with `idempotent-replayed: true`. A different request with the same key is refused, and so is a
//!   retry while the first request is still in progress.
//! * A request that is refused before it takes effect stores nothing.
//! * Neither the key nor anything secret in an answer is stored in plain text: of the key there is a digest, and an
//!   answer that shows a virtual key or a model's text is encrypted with a key derived from it.

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
use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use uuid::Uuid;

/// The header that makes a retry safe.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header that makes a call of OpenAI's API in an existing job.
pub const JOB_ID: HeaderName = HeaderName::from_static("x-job-id");

/// A request that changes something, with the facts about it that have to be stored.
#[derive(Clone, Debug)]
pub struct Mutation(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    request: Request,
    idempotency_key: Option<SecretString>,
    replayed: AtomicBool,
}

/// The parameter `p_request` of the functions `claim` and `keep`.
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

/// Routes of the admin that a timer requests, so that the audit log would hold little else.
const UNAUDITED: [&str; 2] = ["/api/upkeep", "/api/jobs/expire"];

/// Where bodies name persons and say something about them, which the audit log must not keep.
fn names_persons(route: &str) -> bool {
    route.starts_with("/api/jobs/") || route == "/api/teams/{team_id}/erase-user"
}

/// The maximum size of a body that the audit log stores.
const MAX_AUDITED_BYTES: usize = 64 * 1024;

impl Mutation {
    /// The mutation of a request by `caller` on the route `route`.
    pub(crate) fn new(
        caller: &Caller,
        parts: &Parts,
        route: &str,
        request_id: &str,
        body: &[u8],
    ) -> Result<Self> {
        let idempotency_key = idempotency_key(&parts.headers)?;
        let admin = matches!(caller, Caller::Admin);
        let (caller, key_id) = match caller {
            Caller::Admin => ("admin".to_owned(), None),
            Caller::Team(key) => (format!("team:{}", key.team_id), Some(key.key_id)),
        };
        let admins_change = admin && !UNAUDITED.contains(&route);
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let audited = admins_change
            .then(|| serde_json::from_slice(body).ok())
            .flatten()
            .filter(|_| body.len() <= MAX_AUDITED_BYTES && !names_persons(route));
        let request = (admins_change || idempotency_key.is_some()).then(|| RequestJson {
            caller,
            request_id,
            key_id,
            action: admins_change.then(|| format!("{} {route}", parts.method)),
            path: admins_change.then_some(path),
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

    /// Makes a change with one statement.
    pub async fn run<T: DeserializeOwned>(&self, function: Function) -> Result<T> {
        let changed = self.0.request.run(function).await?;
        if changed.replayed {
            self.mark_replayed();
        }
        changed.answer()
    }

    /// [`Mutation::run`] for a function that changes nothing if it is called again. After a lost answer it is not sent
    /// again where the audit log would have a second entry.
    pub async fn run_repeatable<T: DeserializeOwned>(&self, function: Function) -> Result<T> {
        let once = self.0.request.is_some() && !self.is_idempotent();
        self.run(if once { function } else { function.repeatable() }).await
    }

    /// The first of two statements. For a retry: the answer to the first request, with the secret that was stored with
    /// it.
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

    /// The second of two statements, which stores its answer and, encrypted, `secret`.
    pub async fn finish<A: DeserializeOwned>(&self, function: Function, secret: &[u8]) -> Result<A> {
        let sealed = self.seal(secret).await?;
        self.0.request.finish(function, sealed).await?.answer()
    }

    /// Replaces [`Mutation::finish`] if the work has failed: `undo` takes back what the first statement did.
    pub async fn release(&self, undo: Function) -> Result<()> {
        self.0.request.release(undo).await
    }

    /// Work of several statements, whose answer is stored encrypted. `begin` claims the request, and the work gets its
    /// answer; `end` only reads, and stores the work's answer or, if the work has failed, releases the request. A retry
    /// gets the stored answer.
    pub async fn work<B, T, Work>(
        &self,
        begin: Function,
        end: impl Fn() -> Function,
        work: impl FnOnce(B) -> Work,
    ) -> Result<T>
    where
        B: DeserializeOwned,
        T: Serialize + DeserializeOwned,
        Work: Future<Output = Result<T>>,
    {
        let begun = match self.begin::<IgnoredAny, B>(begin).await? {
            Beginning::Repeat(_, answer) => return serde_json::from_slice(&answer).map_err(Error::internal),
            Beginning::New(begun) => begun,
        };
        match work(begun).await {
            Ok(done) => {
                let answer = serde_json::to_vec(&done).map_err(Error::internal)?;
                self.finish::<IgnoredAny>(end(), &answer).await?;
                Ok(done)
            }
            Err(failure) => {
                // The claim expires if this fails, too.
                _ = self.release(end()).await;
                Err(failure)
            }
        }
    }

    /// The request as SQL takes it, for a second statement that may be sent after the request has ended.
    pub(crate) fn request(&self) -> Request {
        self.0.request.clone()
    }

    /// Whether the request carries an `Idempotency-Key`.
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

    /// Encrypts an answer for storage: it can't be read from the database alone, but a retry of the request can read
    /// it. `None` without an `Idempotency-Key`.
    pub(crate) async fn seal(&self, answer: &[u8]) -> Result<Option<String>> {
        let Some(cipher) = self.cipher().await? else { return Ok(None) };
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).map_err(Error::internal)?;
        let sealed = cipher
            .encrypt(&nonce.into(), answer)
            .map_err(|_| Error::internal("an answer can't be sealed"))?;
        Ok(Some(STANDARD.encode([&nonce[..], &sealed].concat())))
    }

    /// Decrypts what [`Mutation::seal`] has encrypted.
    async fn unseal(&self, sealed: &str) -> Result<Vec<u8>> {
        // It was encrypted under another LiteLLM master key, so the answer is lost.
        let lost = || {
            Error::new(Code::IdempotencyMismatch, "Idempotency-Key: the first answer can't be read any more")
        };
        let cipher = self.cipher().await?.ok_or_else(lost)?;
        let bytes = STANDARD.decode(sealed).map_err(|_| lost())?;
        let (nonce, sealed) = bytes.split_first_chunk::<12>().ok_or_else(lost)?;
        cipher.decrypt(nonce.into(), sealed).map_err(|_| lost())
    }

    /// The cipher's key is derived from the `Idempotency-Key`, which is stored nowhere, and from a secret of the
    /// deployment, in case the `Idempotency-Key` is easy to guess.
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

/// The result of [`Mutation::begin`].
pub enum Beginning<A, B> {
    /// The request is new, and the work is to be done.
    New(B),
    /// The same request was answered before: its answer, and the secret that belongs to it.
    Repeat(A, Vec<u8>),
}

/// The hex of a SHA-256 of the request, by which a different request with the same key is noticed.
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
