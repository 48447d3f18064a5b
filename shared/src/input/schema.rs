//! What the documentation says of the values.

use super::{Amount, Credits, Metadata, Prose, Seconds, Slug, Text};
use crate::money::Usd;
use serde_json::json;
use std::borrow::Cow;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema,
        schema::{AdditionalProperties, SchemaType, Type},
    },
};

fn of(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

impl<const MAX: usize> PartialSchema for Text<MAX> {
    fn schema() -> RefOr<Schema> {
        // No control characters, and not all of it blank.
        let pattern =
            r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
        of(Type::String).min_length(Some(1)).max_length(Some(MAX)).pattern(Some(pattern)).into()
    }
}

impl<const MAX: usize> ToSchema for Text<MAX> {
    fn name() -> Cow<'static, str> {
        format!("Text{MAX}").into()
    }
}

impl PartialSchema for Prose {
    fn schema() -> RefOr<Schema> {
        of(Type::String)
            .min_length(Some(1))
            .max_length(Some(10_000))
            .pattern(Some(r"^[^\u0000]*[^\s\u0000][^\u0000]*$"))
            .into()
    }
}

impl ToSchema for Prose {
    fn name() -> Cow<'static, str> {
        "Prose".into()
    }
}

impl PartialSchema for Slug {
    fn schema() -> RefOr<Schema> {
        of(Type::String)
            .pattern(Some("^[A-Za-z0-9_.-]{1,128}$"))
            .description(Some("An id that the caller chooses: 1 to 128 of A-Z a-z 0-9 _ . -"))
            .into()
    }
}

impl ToSchema for Slug {
    fn name() -> Cow<'static, str> {
        "Slug".into()
    }
}

impl PartialSchema for Metadata {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .description(Some(
                "Any JSON object of up to 16 KiB; given back as it came. `null`: an empty one.",
            ))
            .examples([json!({"department": "sales"})])
            .into()
    }
}

impl ToSchema for Metadata {
    fn name() -> Cow<'static, str> {
        "Metadata".into()
    }
}

fn whole(min: i64, max: i64) -> RefOr<Schema> {
    of(Type::Integer).minimum(Some(min)).maximum(Some(max)).into()
}

impl PartialSchema for Credits {
    fn schema() -> RefOr<Schema> {
        whole(0, 1_000_000_000)
    }
}

impl ToSchema for Credits {
    fn name() -> Cow<'static, str> {
        "Credits".into()
    }
}

impl PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        whole(1, 1_000_000_000)
    }
}

impl ToSchema for Amount {
    fn name() -> Cow<'static, str> {
        "Amount".into()
    }
}

impl<const MAX: i64> PartialSchema for Seconds<MAX> {
    fn schema() -> RefOr<Schema> {
        whole(1, MAX)
    }
}

impl<const MAX: i64> ToSchema for Seconds<MAX> {
    fn name() -> Cow<'static, str> {
        format!("SecondsUpTo{MAX}").into()
    }
}

impl PartialSchema for Usd {
    fn schema() -> RefOr<Schema> {
        of(Type::Number).description(Some("US dollars, an exact decimal")).examples([json!(0.00025)]).into()
    }
}

impl ToSchema for Usd {
    fn name() -> Cow<'static, str> {
        "Usd".into()
    }
}
