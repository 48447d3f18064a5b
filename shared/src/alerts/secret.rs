//! The secrets by which webhooks are signed, and their signatures, as [Standard Webhooks](https://standardwebhooks.com)
//! has them.
//!
//! A team's own secret is derived from the deployment's and a random salt. The database holds the salts, which are
//! worth nothing without the deployment's secret, and the secrets themselves are stored nowhere.

use crate::{
    error::{Error, Result},
    platform::settings,
    values::TeamId,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

/// What the text of a secret begins with; the base64 of its bytes follows.
const PREFIX: &str = "whsec_";

/// A secret: the key of an HMAC-SHA256.
pub struct Secret(SecretSlice<u8>);

impl Secret {
    /// The deployment's: the variable `webhook_secret`. `None`: it is empty, and nothing is sent.
    pub async fn of_deployment() -> Result<Option<Self>> {
        let text = settings::text("webhook_secret").await?;
        if text.is_empty() { Ok(None) } else { Self::read(&text).map(Some) }
    }

    /// The deployment's, for a request that can't do without.
    pub async fn of_configured_deployment() -> Result<Self> {
        let problem = "the deployment has none, so no alert is sent anywhere; set this variable first";
        Self::of_deployment().await?.ok_or_else(|| Error::invalid("webhook_secret", problem))
    }

    /// Text in another form than `whsec_…` is itself the key.
    fn read(text: &str) -> Result<Self> {
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            return Ok(Self::from(text.as_bytes().to_vec()));
        };
        let key = STANDARD.decode(encoded).ok().filter(|key| (24..=64).contains(&key.len()));
        key.map(Self::from).ok_or_else(|| {
            Error::internal("variable webhook_secret: expected the base64 of 24 to 64 bytes after whsec_")
        })
    }

    /// A team's own secret, if this is the deployment's. `salt` is in hex, as SQL gives it.
    pub fn of_team(&self, team_id: &TeamId, salt: &str) -> Result<Self> {
        let salt = hex::decode(salt).map_err(Error::internal)?;
        let derivation = Hkdf::<Sha256>::new(Some(&salt), self.0.expose_secret());
        let mut key = vec![0; 32];
        derivation
            .expand_multi_info(&[b"llm-jobs webhook ", team_id.as_str().as_bytes()], &mut key)
            .map_err(Error::internal)?;
        Ok(Self::from(key))
    }

    /// The secret as its team gets to see it.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(self.0.expose_secret()))
    }

    /// The signature of a message with this id, sent at this time (seconds since 1970).
    pub fn sign(&self, id: &str, timestamp: u64, body: &str) -> Result<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).map_err(Error::internal)?;
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

impl From<Vec<u8>> for Secret {
    fn from(key: Vec<u8>) -> Self {
        Self(key.into())
    }
}

/// A new salt.
pub fn salt() -> Result<Vec<u8>> {
    let mut salt = vec![0; 32];
    getrandom::fill(&mut salt).map_err(Error::internal)?;
    Ok(salt)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn a_message_is_signed_as_in_the_examples_of_standard_webhooks() {
        let secret = Secret::read(GIVEN).unwrap();
        let signature =
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#).unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(secret.expose(), GIVEN);
    }

    #[test]
    fn a_deployments_secret_is_the_base64_of_24_to_64_bytes_after_whsec_or_any_other_text() {
        assert_eq!(Secret::read("a text").unwrap().0.expose_secret(), b"a text");
        for length in [24, 64] {
            assert!(Secret::read(&format!("whsec_{}", STANDARD.encode(vec![1; length]))).is_ok());
        }
        for wrong in ["whsec_", "whsec_no base64", &format!("whsec_{}", STANDARD.encode([1; 23]))] {
            assert!(Secret::read(wrong).is_err(), "{wrong}");
        }
        assert!(Secret::read(&format!("whsec_{}", STANDARD.encode([1; 65]))).is_err());
    }

    #[test]
    fn a_teams_secret_depends_on_the_deployments_the_team_and_the_salt() {
        let team = |id: &str| TeamId::try_from(id.to_owned()).unwrap();
        let derived = |deployment: &str, id: &str, salt: u8| {
            let salt = hex::encode([salt; 32]);
            Secret::read(deployment).unwrap().of_team(&team(id), &salt).unwrap().expose()
        };
        let all = [
            derived(GIVEN, "one", 1),
            derived("a text", "one", 1),
            derived(GIVEN, "other", 1),
            derived(GIVEN, "one", 2),
        ];
        for (at, secret) in all.iter().enumerate() {
            assert!(secret.starts_with(PREFIX) && secret.len() == PREFIX.len() + 44, "{secret}");
            assert!(!all.iter().skip(at + 1).any(|other| other == secret));
        }
        assert_eq!(derived(GIVEN, "one", 1), all[0]);
    }
}
