//! What WeChat answers to well-known business calls. All others get `{"errcode":0,"errmsg":"ok"}`.
//!
//! The shapes are those of WeChat's documentation; the values are made up, and the same for everybody.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wxtokend_core::account::Appid;

use super::wire::{Answer, Request};

/// A user who follows every account.
const OPENID: &str = "o6_bmjrPTlm6_2sgVt7hMZOPfL2M";
const MEDIA_ID: &str = "MEDIA_ID_c3ybqnVVwn0rBmYD3mN6-_oXFQ4P";

/// A PNG of one pixel.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// The calls that answer with a file, not with JSON.
const FILES: [&str; 6] = [
    "/cgi-bin/material/get_material",
    "/cgi-bin/media/get",
    "/cgi-bin/media/get/jssdk",
    "/cgi-bin/wxaapp/createwxaqrcode",
    "/wxa/getwxacode",
    "/wxa/getwxacodeunlimit",
];

/// The answer to a call that gets a file, if this is one.
pub(super) fn file(request: &Request) -> Option<Answer> {
    let path = request.plain_path();
    if !FILES.contains(&path.as_ref()) {
        return None;
    }
    let disposition = format!("attachment; filename=\"{MEDIA_ID}.png\"");
    let headers =
        vec![("Content-Type".into(), "image/png".into()), ("Content-disposition".into(), disposition.into())];
    Some(Answer { status: 200, headers, body: STANDARD.decode(PIXEL).unwrap_or_default() })
}

/// The JSON that answers a call of `appid` at the Unix time `wall_s`.
pub(super) fn json(request: &Request, appid: &Appid, wall_s: u64) -> Value {
    let mut fields = match request.plain_path().as_ref() {
        "/cgi-bin/getcallbackip" => {
            return json!({"ip_list": ["101.226.103.0/25", "140.207.54.0/25", "183.3.234.152"]});
        }
        "/cgi-bin/user/info" => {
            return json!({
                "subscribe": 1, "openid": request.param("openid").unwrap_or(OPENID), "language": "zh_CN",
                "subscribe_time": 1_434_093_047, "unionid": "o6_bmasdasdsad6_2sgVt7hMZOPfL", "remark": "",
                "groupid": 0, "tagid_list": [128, 2], "subscribe_scene": "ADD_SCENE_QR_CODE",
                "qr_scene": 98765, "qr_scene_str": "",
            });
        }
        "/cgi-bin/user/get" => {
            return json!({"total": 1, "count": 1, "data": {"openid": [OPENID]}, "next_openid": OPENID});
        }
        "/cgi-bin/menu/get" => {
            let button = json!({"type": "click", "name": "今日歌曲", "key": "V1001", "sub_button": []});
            return json!({"menu": {"button": [button]}});
        }
        "/cgi-bin/tags/get" => return json!({"tags": [{"id": 2, "name": "星标组", "count": 1}]}),
        "/cgi-bin/media/upload" => {
            let kind = request.param("type").unwrap_or("image");
            return json!({"type": kind, "media_id": MEDIA_ID, "created_at": wall_s});
        }
        "/cgi-bin/material/add_material" => {
            return json!({"media_id": MEDIA_ID, "url": "http://mmbiz.qpic.cn/mmbiz_png/0?wx_fmt=png"});
        }
        "/cgi-bin/material/get_materialcount" => {
            return json!({"voice_count": 0, "video_count": 0, "image_count": 1, "news_count": 0});
        }
        "/cgi-bin/material/batchget_material" => {
            let item = json!({"media_id": MEDIA_ID, "name": "1.png", "update_time": wall_s, "url": ""});
            return json!({"total_count": 1, "item_count": 1, "item": [item]});
        }
        "/cgi-bin/qrcode/create" => {
            let (ticket, url) = ("gQH47joAAAAAAAAAASxodHRw", "http://weixin.qq.com/q/kZgfwMTm72WWPkovabbI");
            return json!({"ticket": ticket, "expire_seconds": 60, "url": url});
        }
        "/datacube/getusersummary" => return json!({"list": []}),
        "/cgi-bin/message/template/send" => json!({"msgid": 200_228_332}),
        "/wxa/business/getuserphonenumber" => json!({"phone_info": {
            "phoneNumber": "13800138000", "purePhoneNumber": "13800138000", "countryCode": "86",
            "watermark": {"timestamp": wall_s, "appid": appid},
        }}),
        "/wxa/msg_sec_check" => json!({"result": {"suggest": "pass", "label": 100}, "trace_id": "60ae120f"}),
        _ => json!({}),
    };
    fields["errcode"] = 0.into();
    fields["errmsg"] = "ok".into();
    fields
}
