/** The content of customers' messages by kind, in Kapso's format. */

/** The type-specific fields of a message, and its text as shown to a person. */
export interface CustomerContent {
  type: string;
  content: Record<string, unknown>;
  text: string;
  media?: Record<string, unknown>;
}

/** The kinds of messages that customers can send. `unsupported`: a kind that WhatsApp's API does not forward, such as a poll. */
export const CUSTOMER_KINDS = [
  'text',
  'image',
  'audio',
  'document',
  'location',
  'contacts',
  'button_reply',
  'list_reply',
  'template_button',
  'reaction',
  'unsupported',
] as const;
export type CustomerKind = (typeof CUSTOMER_KINDS)[number];

function mediaContent(type: string, fields: object, text: string, file: { name: string; contentType: string }): CustomerContent {
  const url = `https://app.kapso.ai/rails/active_storage/blobs/redirect/SANDBOX/${file.name}`;
  const data = { url, filename: file.name, content_type: file.contentType, byte_size: 51_200 };
  return {
    type,
    content: { [type]: { id: '300000000000001', mime_type: file.contentType, ...fields } },
    text: `${text} ${type} attached (${file.name}) URL: ${url}`.trim(),
    media: { media_url: url, media_data: data },
  };
}

function plain(type: string, fields: object, text: string): CustomerContent {
  return { type, content: { [type]: fields }, text };
}

/** Content of a customer's message. `text` is the text, caption, transcript, title, emoji or name, depending on the kind. */
export function customerContent(kind: CustomerKind, text: string, replyTo: string | undefined): CustomerContent {
  switch (kind) {
    case 'text':
      return plain('text', { body: text }, text);
    case 'image':
      return mediaContent('image', text === '' ? {} : { caption: text }, text, { name: 'photo.jpg', contentType: 'image/jpeg' });
    case 'audio':
      return voiceNote(text);
    case 'document':
      return mediaContent('document', { filename: 'file.pdf', caption: text }, text, { name: 'file.pdf', contentType: 'application/pdf' });
    case 'location':
      return plain('location', { latitude: -6.2, longitude: 106.816666, name: text }, `Location: ${text}`);
    case 'contacts':
      return { type: 'contacts', content: { contacts: [{ name: { formatted_name: text, first_name: text } }] }, text: `Contact: ${text}` };
    case 'button_reply':
      return plain('interactive', { type: kind, button_reply: { id: text, title: text } }, text);
    case 'list_reply':
      return plain('interactive', { type: kind, list_reply: { id: text, title: text } }, text);
    case 'template_button':
      return plain('button', { payload: text, text }, text);
    case 'reaction':
      return plain('reaction', { message_id: replyTo ?? '', emoji: text }, text);
    case 'unsupported':
      return { type: 'unsupported', content: { errors: [UNSUPPORTED_ERROR], unsupported: { type: 'poll' } }, text: '' };
  }
}

function voiceNote(text: string): CustomerContent {
  const audio = mediaContent('audio', { voice: true }, '', { name: 'voice.ogg', contentType: 'audio/ogg' });
  return text === '' ? audio : { ...audio, media: { ...audio.media, transcript: { text } } };
}

const UNSUPPORTED_ERROR = {
  code: 131051,
  title: 'Message type unknown',
  message: 'Message type unknown',
  error_data: { details: 'Message type is currently not supported.' },
};
