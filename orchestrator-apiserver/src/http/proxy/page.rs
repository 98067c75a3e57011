//! The body of an answer in HTML, in any of the codings that are known, with its links rewritten piece by piece.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::{
    Compression,
    write::{DeflateDecoder, DeflateEncoder, GzEncoder, MultiGzDecoder},
};
use futures::{StreamExt, future, stream};
use http::{HeaderMap, Response, header};
use http_body_util::BodyStream;

use super::{
    headers::{Link, text},
    html::Rewriter,
};
use crate::{
    http::body::{Body, BodyError},
    limits,
};

/// Rewrites the links of an answer, if it is a page that can be read.
pub(super) fn rewritten(mut response: Response<Body>, link: &Link) -> Response<Body> {
    let headers = response.headers_mut();
    let media = text(headers, header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("text/html") {
        return response;
    }
    let Some(mut page) = Page::new(headers, link) else { return response };
    headers.remove(header::CONTENT_LENGTH);
    response.map(|body| {
        let pieces = BodyStream::new(body)
            .filter_map(|frame| future::ready(frame.map(|frame| frame.into_data().ok()).transpose()));
        // A small piece can become large, once it is unpacked.
        let pieces = pieces.flat_map(|piece| stream::iter(split(piece)));
        let end = stream::once(future::ready(None));
        let mut is_empty = true;
        let pages = pieces.map(Some).chain(end).map(move |piece| match piece {
            Some(piece) => {
                is_empty = false;
                page.push(&piece?).map_err(BodyError::from)
            }
            // Nothing is no end of anything that is packed.
            None if is_empty => Ok(Bytes::new()),
            None => page.finish().map_err(BodyError::from),
        });
        Body::stream(pages.filter(|page| future::ready(page.as_ref().map_or(true, |page| !page.is_empty()))))
    })
}

/// Pieces of a bounded size.
fn split(piece: Result<Bytes, BodyError>) -> Vec<Result<Bytes, BodyError>> {
    match piece {
        Ok(bytes) => {
            let starts = (0..bytes.len()).step_by(limits::HTML_PIECE_BYTES);
            let end = |start: usize| bytes.len().min(start + limits::HTML_PIECE_BYTES);
            starts.map(|start| Ok(bytes.slice(start..end(start)))).collect()
        }
        Err(error) => vec![Err(error)],
    }
}

/// A page, and how it is packed.
enum Page {
    Plain(Packed<Vec<u8>>),
    Gzip(MultiGzDecoder<Packed<GzEncoder<Vec<u8>>>>),
    Deflate(DeflateDecoder<Packed<DeflateEncoder<Vec<u8>>>>),
}

impl Page {
    fn new(headers: &HeaderMap, link: &Link) -> Option<Self> {
        let rewriter = Rewriter::new(link.clone());
        let level = Compression::fast();
        Some(match text(headers, header::CONTENT_ENCODING) {
            "" => Self::Plain(Packed { rewriter, out: Vec::new() }),
            "gzip" => Self::Gzip(MultiGzDecoder::new(Packed { rewriter, out: GzEncoder::new(Vec::new(), level) })),
            "deflate" => {
                Self::Deflate(DeflateDecoder::new(Packed { rewriter, out: DeflateEncoder::new(Vec::new(), level) }))
            }
            _ => return None,
        })
    }

    /// What this piece makes certain.
    fn push(&mut self, piece: &[u8]) -> io::Result<Bytes> {
        let out = match self {
            Self::Plain(page) => {
                page.write_all(piece)?;
                &mut page.out
            }
            Self::Gzip(page) => {
                page.write_all(piece)?;
                page.get_mut().out.get_mut()
            }
            Self::Deflate(page) => {
                page.write_all(piece)?;
                page.get_mut().out.get_mut()
            }
        };
        Ok(std::mem::take(out).into())
    }

    /// What is left.
    fn finish(&mut self) -> io::Result<Bytes> {
        let out = match self {
            Self::Plain(page) => {
                page.end()?;
                &mut page.out
            }
            Self::Gzip(page) => {
                page.try_finish()?;
                let packed = page.get_mut();
                packed.end()?;
                packed.out.try_finish()?;
                packed.out.get_mut()
            }
            Self::Deflate(page) => {
                page.try_finish()?;
                let packed = page.get_mut();
                packed.end()?;
                packed.out.try_finish()?;
                packed.out.get_mut()
            }
        };
        Ok(std::mem::take(out).into())
    }
}

/// Rewrites what is written, and packs it again.
struct Packed<W> {
    rewriter: Rewriter,
    out: W,
}

impl<W: Write> Packed<W> {
    fn end(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        self.rewriter.finish(&mut rest);
        self.out.write_all(&rest)
    }
}

impl<W: Write> Write for Packed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut certain = Vec::with_capacity(bytes.len());
        self.rewriter.push(bytes, &mut certain);
        self.out.write_all(&certain)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::{DeflateDecoder as Inflate, GzDecoder as Gunzip};
    use futures::executor::block_on;
    use http_body_util::BodyExt;

    use super::*;

    const PAGE: &str = "<html><a href=\"/x\">x</a></html>";
    const EXPECTED: &str = "<html><a href=\"/proxy/x\">x</a></html>";

    fn through(media: &str, coding: &str, body: Vec<u8>) -> Vec<u8> {
        let response = Response::builder().header("content-type", media).header("content-encoding", coding);
        let response = response.header("content-length", body.len()).body(Body::full(body)).unwrap();
        let (host, asked_host) = ("10.0.0.1:80".to_owned(), "server".to_owned());
        let response = rewritten(response, &Link { prefix: "/proxy".to_owned(), host, asked_host });
        block_on(response.into_body().collect()).unwrap().to_bytes().to_vec()
    }

    fn read(mut reader: impl Read) -> String {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn pages_are_rewritten_however_they_are_packed() {
        let html = "text/html; charset=utf-8";
        assert_eq!(through(html, "", PAGE.into()), EXPECTED.as_bytes());
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(PAGE.as_bytes()).unwrap();
        assert_eq!(read(Gunzip::new(&*through(html, "gzip", packed.finish().unwrap()))), EXPECTED);
        let mut packed = DeflateEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(PAGE.as_bytes()).unwrap();
        assert_eq!(read(Inflate::new(&*through(html, "deflate", packed.finish().unwrap()))), EXPECTED);
    }

    #[test]
    fn what_is_no_page_stays_as_it_is() {
        assert_eq!(through("text/plain", "", PAGE.into()), PAGE.as_bytes());
        assert_eq!(through("text/html", "br", PAGE.into()), PAGE.as_bytes());
        assert_eq!(through("text/html", "", Vec::new()), b"");
        assert_eq!(through("text/html", "gzip", Vec::new()), b"");
    }
}
