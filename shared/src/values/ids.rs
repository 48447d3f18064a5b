//! Ids. Each kind has a type of its own, so that no id can be used in place of another.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use std::fmt;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};
use uuid::Uuid;

/// What stands in paths where an id would stand, or can't be sent in a path.
pub const RESERVED: [&str; 6] = [".", "..", "create", "expire", "create-and-call", "create-and-call-stream"];

/// Defines ids and names that a caller chooses: 1 to 128 of `A-Z a-z 0-9 _ . -`, but none of [`RESERVED`].
macro_rules! chosen {
    ($(#[doc = $doc:literal] $name:ident),* $(,)?) => { $(
        #[doc = $doc]
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                checked(text).map(Self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.try_into().map_err(D::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                super::schema::chosen($doc)
            }
        }

        impl ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )* };
}

chosen! {
    /// The id of an organization, which teams belong to.
    OrganizationId,
    /// The id of a team, which has credits, keys and model groups.
    TeamId,
    /// The name of a model group.
    GroupName,
    /// The name of an access group, which is a named set of model groups.
    AccessGroupName,
    /// The id of an organization in LiteLLM.
    LiteLlmOrganizationId,
}

fn checked(text: String) -> Result<String, &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !(1..=128).contains(&text.len()) || !text.chars().all(allowed) {
        Err("expected 1 to 128 of A-Z a-z 0-9 _ . -")
    } else if RESERVED.contains(&text.as_str()) {
        Err("expected none of the reserved words . .. create expire create-and-call create-and-call-stream")
    } else {
        Ok(text)
    }
}

impl OrganizationId {
    /// An id made from a name: lower case, and `-` for each run of other characters. Never empty.
    pub fn from_name(name: &str) -> Self {
        let words: Vec<String> = name
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        let id: String = words.join("-").chars().take(100).collect();
        Self(match id.as_str() {
            "" => "org".into(),
            word if RESERVED.contains(&word) => format!("org-{word}"),
            _ => id,
        })
    }
}

impl TeamId {
    /// An id made from a UUID, which no other team has.
    pub fn generated(unique: Uuid) -> Self {
        Self(format!("team_{}", unique.simple()))
    }
}

/// Defines ids that this API generates: UUIDs.
macro_rules! made {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = Uuid)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id: a UUID of version 7, so later ids are greater.
            pub fn new_v7() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )* };
}

made! {
    /// The id of a job.
    JobId,
    /// The id of a call, under which LiteLLM records it too.
    CallId,
    /// The id of an alert, which its deliveries carry too.
    AlertId,
    /// The id of a virtual key; not the key itself.
    KeyId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_1_to_128_of_its_characters() {
        for id in ["a", "org_1.A-b", &"x".repeat(128)] {
            assert!(TeamId::try_from(id.to_owned()).is_ok(), "{id}");
        }
        for id in
            ["", "a b", "a/b", "é", "a\0", &"x".repeat(129), ".", "..", "create", "create-and-call-stream"]
        {
            assert!(TeamId::try_from(id.to_owned()).is_err(), "{id}");
        }
    }

    #[test]
    fn an_id_made_from_a_name_is_valid() {
        for (name, id) in [
            ("Acme Corp", "acme-corp"),
            ("  ACME, Inc.  ", "acme-inc"),
            ("日本", "org"),
            ("Create!", "org-create"),
        ] {
            assert_eq!(OrganizationId::from_name(name).as_str(), id);
        }
        let long = OrganizationId::from_name(&"long ".repeat(100)).to_string();
        assert!(OrganizationId::try_from(long).is_ok());
    }
}
