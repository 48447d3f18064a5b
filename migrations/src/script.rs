//! The same as a script for `psql`.

use crate::{AFTER_FUNCTIONS, BEFORE_FUNCTIONS, BOOKS, LOCK, Schema};
use std::fmt::Write as _;

/// The script that brings any database up to date with this schema, or fails and changes nothing.
///
/// It is for those who let nothing but `psql` near their database. What it has to do it finds out as it runs.
pub fn of(schema: &Schema) -> String {
    let mut text = format!(
        "-- Release {}: brings a database up to date, or changes nothing. To be run by its owner:\n\
         --   psql -X -f THIS_FILE postgres://…\n\
         \\set ON_ERROR_STOP on\n\
         BEGIN;\n\
         SET LOCAL client_min_messages = warning;\n\
         SELECT pg_advisory_xact_lock({LOCK});\n{BOOKS}",
        schema.release
    );
    write(&mut text, &checks(schema));
    for (number, file) in (1..).zip(&schema.tables) {
        let name = file.recorded_name();
        write(
            &mut text,
            &format!(
                "\n-- {0}\nSELECT NOT EXISTS (SELECT FROM schema_migrations \
                 WHERE number = {number}) AS is_missing \\gset\n\
                 \\if :is_missing\n{1}\n\
                 INSERT INTO schema_migrations (number, file, checksum) VALUES ({number}, '{name}', '{2}');\n\\endif\n",
                file.name,
                file.sql,
                file.checksum()
            ),
        );
    }
    let (release, checksum) = (schema.release, schema.functions_checksum());
    write(
        &mut text,
        &format!(
            "\n-- functions/*.sql\nSELECT NOT EXISTS (SELECT FROM schema_functions WHERE release = '{release}' \
             AND checksum = '{checksum}') AS is_missing \\gset\n\\if :is_missing\n{BEFORE_FUNCTIONS}"
        ),
    );
    for file in &schema.functions {
        write(&mut text, &format!("\n-- {}\n{}", file.name, file.sql));
    }
    write(
        &mut text,
        &format!(
            "{AFTER_FUNCTIONS}\nINSERT INTO schema_functions (release, checksum) VALUES ('{release}', '{checksum}')\n\
             ON CONFLICT (only_row) DO UPDATE\n\
             SET release = excluded.release, checksum = excluded.checksum, applied_at = now();\n\\endif\nCOMMIT;\n"
        ),
    );
    text
}

/// Fails where what was applied is not what the files of this release hold.
fn checks(schema: &Schema) -> String {
    let known: Vec<String> = (1..)
        .zip(&schema.tables)
        .map(|(number, file)| format!("({number}, '{}', '{}')", file.recorded_name(), file.checksum()))
        .collect();
    format!(
        "
DO $$
DECLARE
    v_file text;
    v_release text;
BEGIN
    SELECT m.file INTO v_file FROM schema_migrations m
    WHERE (m.number, m.file, m.checksum) NOT IN (VALUES {}) ORDER BY m.number LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the database has % as this release does not know it', v_file;
    END IF;
    SELECT release INTO v_release FROM schema_functions
    WHERE string_to_array(release, '.')::integer[] > string_to_array('{}', '.')::integer[];
    IF FOUND THEN
        RAISE EXCEPTION 'the database is of release %, which is newer: use that one', v_release;
    END IF;
END $$;
",
        known.join(", "),
        schema.release
    )
}

/// Writing to a text can't fail.
fn write(text: &mut String, more: &str) {
    _ = text.write_str(more);
}
