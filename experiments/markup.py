"""Plain text of HTML and of manual pages."""

from __future__ import annotations

import html
import re

_UNSEEN = re.compile(
  r'<!--.*?-->|<(script|style|head|header|nav|aside|footer)\b.*?</\1>',
  re.DOTALL,
)
_BREAK = re.compile(
  r'</?(?:br|dd|div|dl|dt|h[1-6]|hr|important|li|note|ol|p|pre|section|table'
  r'|td|th|title|tr|ul)\b[^<>]*>'
)
_TAG = re.compile(r'</?[A-Za-z][^<>]*>')


def html_lines(page: str) -> list[str]:
  """The lines that a reader sees, each a paragraph, an item or a cell."""
  # Where the source breaks its lines means nothing.
  text = ' '.join(_UNSEEN.sub(' ', page).split())
  lines = _TAG.sub('', _BREAK.sub('\n', text)).split('\n')
  texts = (' '.join(html.unescape(line).split()) for line in lines)
  return [text for text in texts if text]


# Requests that begin a paragraph; what follows some of them is its first words.
_PARAGRAPH = {'HP', 'IP', 'LP', 'P', 'PP', 'SH', 'SS', 'TP', 'TQ'}
_WITH_TEXT = {'B', 'BI', 'BR', 'I', 'IB', 'IP', 'IR', 'RB', 'RI', 'SH', 'SM'}
_WITH_TEXT |= {'SB', 'SS'}
_ALTERNATING = {'BI', 'BR', 'IB', 'IR', 'RB', 'RI'}
_SPECIAL = {'-': '-', 'e': '\\', ' ': ' ', '~': ' ', '0': ' '}
_SPECIAL |= {'(aq': "'", '(dq': '"', '(bu': '•', '(em': '—', '(en': '–'}
_SPECIAL |= {'(co': '©', '(rs': '\\', '(ti': '~', '(ha': '^', '(lq': '„'}
_SPECIAL |= {'(rq': '“'}
_ESCAPE = re.compile(
  r'\\(?:".*'  # a comment
  r"|[hvwDloLs](?:'[^']*'|\[[^]]*\])|s[-+]?\d"  # motions, sizes
  r'|[fmFn*](?:\(..|\[[^]]*\]|.)'  # fonts, colours, variables
  r'|(?P<name>\(..|\[[^]]*\]|.)|$)'
)


def roff_paragraphs(page: str) -> list[str]:
  """Paragraphs and headings of a page in the `man` macros.

  The section that names the translators is left out.
  """
  paragraphs: list[str] = []
  words: list[str] = []
  for line in page.split('\n'):
    request = ''
    if line.startswith(('.', "'")):
      request, _, line = line[1:].strip().partition(' ')
      if request == 'SH' and 'ÜBERSETZUNG' in line:
        break
      if request in _PARAGRAPH:
        paragraphs.append(' '.join(words))
        words = []
      if request not in _WITH_TEXT:
        continue
      given = [a or b for a, b in re.findall(r'"([^"]*)"|(\S+)', line)]
      if request == 'IP':  # a mark, then how far to indent
        given = given[:1]
      line = ('' if request in _ALTERNATING else ' ').join(given)
    words += _ESCAPE.sub(_character, line).split()
    if request in ('SH', 'SS'):
      paragraphs.append(' '.join(words))
      words = []
  return [text for text in [*paragraphs, ' '.join(words)] if text]


def _character(match: re.Match[str]) -> str:
  name = match['name'] or ''
  if name.startswith('['):
    name = f'({name[1:-1]}'
  return _SPECIAL.get(name, '')
