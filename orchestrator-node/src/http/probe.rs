//! A node as a client of HTTP: `httpGet` of probes and hooks.

use k8s_openapi::api::core::v1::HTTPGetAction;
use orchestrator_core::runtime::Duplex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::limits::{HTTP_BODY_BYTES, HTTP_HEAD_BYTES};

/// Sends a GET over a connection and gives status code and the beginning of the body.
pub(crate) async fn get(
    mut stream: Box<dyn Duplex>,
    action: &HTTPGetAction,
    port: u16,
) -> Result<(u16, String), String> {
    let failed = |error: std::io::Error| error.to_string();
    stream.write_all(request(action, port).as_bytes()).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut answer = Vec::new();
    let limit = (HTTP_HEAD_BYTES + HTTP_BODY_BYTES) as u64;
    let mut limited = stream.take(limit);
    loop {
        let count = limited.read_buf(&mut answer).await.map_err(failed)?;
        if count == 0 || status(&answer).is_some_and(|code| code < 400) {
            break;
        }
    }
    let code = status(&answer).ok_or_else(|| "malformed HTTP response".to_owned())?;
    let text = String::from_utf8_lossy(&answer);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.chars().take(HTTP_BODY_BYTES).collect());
    Ok((code, body.unwrap_or_default()))
}

fn request(action: &HTTPGetAction, port: u16) -> String {
    let clean = |text: &str| text.replace(['\r', '\n'], "");
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut headers = vec![
        ("Host".to_owned(), format!("localhost:{port}")),
        ("User-Agent".to_owned(), "kube-probe/1.36".to_owned()),
        ("Accept".to_owned(), "*/*".to_owned()),
    ];
    for header in action.http_headers.iter().flatten() {
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case(&header.name));
        headers.push((clean(&header.name), clean(&header.value)));
    }
    headers.push(("Connection".to_owned(), "close".to_owned()));
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {slash}{} HTTP/1.1\r\n{headers}\r\n", clean(path))
}

/// The status code, once the first line is there.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next().filter(|line| line.len() < answer.len())?;
    let text = std::str::from_utf8(line).ok()?;
    let mut words = text.split_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.1 20"), None);
        assert_eq!(status(b"SSH-2.0\r\n"), None);
    }

    #[test]
    fn headers_cannot_break_out() {
        let action: HTTPGetAction = serde_json::from_value(serde_json::json!({
            "port": 80, "path": "x\r\nEvil: 1", "httpHeaders": [{"name": "Host", "value": "a\r\nB: c"}],
        }))
        .unwrap();
        let text = request(&action, 80);
        assert!(text.starts_with("GET /xEvil: 1 HTTP/1.1\r\n"));
        assert!(text.contains("Host: aB: c\r\n") && !text.contains("localhost"));
    }
}
