//! The OpenAPI schemas of the values.

use super::{Metadata, Prose, Text, Usd, Whole, ids::RESERVED};
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
        // No control characters, and at least one character that is not a space.
        let pattern =
            r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
        let description =
            format!("1 to {MAX} characters, not all of them blank and none of them a control character.");
        of(Type::String)
            .min_length(Some(1))
            .max_length(Some(MAX))
            .pattern(Some(pattern))
            .description(Some(description))
            .into()
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
            .description(Some("1 to 10,000 characters of any kind but U+0000, not all of them blank."))
            .into()
    }
}

impl ToSchema for Prose {
    fn name() -> Cow<'static, str> {
        "Prose".into()
    }
}

/// The schema of an id or a name that a caller chooses.
pub(super) fn chosen(meaning: &str) -> RefOr<Schema> {
    let reserved = RESERVED.join("|").replace('.', "\\.");
    of(Type::String)
        .pattern(Some(format!("^(?!(?:{reserved})$)[A-Za-z0-9_.-]{{1,128}}$")))
        .description(Some(format!("{} 1 to 128 of `A-Z a-z 0-9 _ . -`.", meaning.trim())))
        .into()
}

impl PartialSchema for Metadata {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .description(Some(
                "Any JSON object of up to 16 KiB, given back as it came. `null` stands for an empty one.",
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

impl<const MIN: i64, const MAX: i64> PartialSchema for Whole<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        of(Type::Integer)
            .minimum(Some(MIN))
            .maximum(Some(MAX))
            .description(Some(format!("A whole number from {MIN} to {MAX}.")))
            .into()
    }
}

impl<const MIN: i64, const MAX: i64> ToSchema for Whole<MIN, MAX> {
    fn name() -> Cow<'static, str> {
        format!("Whole{MIN}To{MAX}").replace('-', "Minus").into()
    }
}

impl PartialSchema for Usd {
    fn schema() -> RefOr<Schema> {
        of(Type::Number)
            .description(Some("An amount in US dollars, an exact decimal number."))
            .examples([json!(0.00025)])
            .into()
    }
}

impl ToSchema for Usd {
    fn name() -> Cow<'static, str> {
        "Usd".into()
    }
}
