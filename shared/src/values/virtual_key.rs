//! Virtual keys in plain text.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// A virtual key in plain text, as the caller sent it or LiteLLM made it. Not printed by `Debug`, and gone from memory when it is
/// dropped.
#[derive(Debug, Clone)]
pub struct VirtualKey(SecretString);

impl VirtualKey {
    /// Takes a key as it is.
    pub fn new(key: String) -> Self {
        Self(key.into())
    }

    /// The key itself: for LiteLLM, and for the one answer that shows it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Its SHA-256, which is what is stored.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.expose()).into()
    }

    /// Its last four characters, by which people tell keys apart.
    pub fn hint(&self) -> String {
        let skipped = self.expose().chars().count().saturating_sub(4);
        self.expose().chars().skip(skipped).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_printed() {
        let key = VirtualKey::new("sk-secret-1234".into());
        assert!(!format!("{key:?}").contains("secret-1"));
        assert_eq!(key.hint(), "1234");
    }
}
