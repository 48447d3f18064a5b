//! Responses with files that were compressed when the component was built.

use axum::{
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{
            ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
            IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};
use flate2::read::GzDecoder;
use shared::error::{Error, Result};
use std::io::Read;

/// The Content-Security-Policy of the pages: they run this application's own scripts, connect to its API, and do
/// nothing else.
///
/// * `data:` pictures are part of Swagger UI's style sheet.
/// * The two digests are of the `<style>` elements that Redoc adds: the look of its menu's scroll bar, which depends on
///   the version that Cargo.toml names, and empty elements that its script fills later.
/// * Redoc's search runs in a worker that it creates from a `blob:` URL.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:; \
    style-src 'self' 'sha256-DLDPR1ic47WIdK2WyeLkblb/tm2mQH+Jt/NNhZWu1k0=' \
    'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='; worker-src blob:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file as it is served.
pub struct File {
    /// The last segment of its path.
    pub name: &'static str,
    /// The value of its `content-type` header.
    pub content_type: &'static str,
    /// Its content, compressed as a single gzip member.
    pub gzip: &'static [u8],
}

impl File {
    /// The file, compressed if the client accepts gzip; 304 if the client has this version already.
    pub fn answer(&self, request: &HeaderMap) -> Result<Response> {
        let tag = self.tag();
        let headers: [(HeaderName, &str); 7] = [
            (CONTENT_TYPE, self.content_type),
            (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            // Clients may cache the file but revalidate it by its tag, so that a new version of the application shows
            // at once.
            (CACHE_CONTROL, "no-cache"),
            (ETAG, &tag),
            (VARY, "accept-encoding"),
        ];
        Ok(if items(request, IF_NONE_MATCH).any(|known| known == tag || known == "*") {
            (StatusCode::NOT_MODIFIED, headers).into_response()
        } else if accepts_gzip(request) {
            (headers, [(CONTENT_ENCODING, "gzip")], self.gzip).into_response()
        } else {
            (headers, self.plain()?).into_response()
        })
    }

    /// The entity tag, from the CRC-32 and the length at the end of the gzip member. It is the same for both encodings.
    fn tag(&self) -> String {
        let sums = self.gzip.last_chunk().copied().map_or(0, u64::from_be_bytes);
        format!("W/\"{sums:016x}\"")
    }

    fn plain(&self) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        match GzDecoder::new(self.gzip).read_to_end(&mut content) {
            Ok(_) => Ok(content),
            Err(error) => Err(Error::internal(format!("{}: {error}", self.name))),
        }
    }
}

/// Whether `accept-encoding` names `gzip` or `*` with a weight above 0. Without the header the response is not
/// compressed.
fn accepts_gzip(request: &HeaderMap) -> bool {
    let weight_of = |wanted: &str| {
        items(request, ACCEPT_ENCODING).find_map(|item| {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let weight = parameters.trim().strip_prefix("q=").unwrap_or("1");
            name.trim().eq_ignore_ascii_case(wanted).then(|| weight.parse::<f32>().unwrap_or(0.0))
        })
    };
    weight_of("gzip").or_else(|| weight_of("*")).is_some_and(|weight| weight > 0.0)
}

/// The items of a header whose value is a comma-separated list.
fn items(request: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = request.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}
